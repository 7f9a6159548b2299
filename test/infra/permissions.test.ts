import { createServer } from 'node:http';
import { once } from 'node:events';
import { join } from 'node:path';
import { Parser, type Element } from '@xmpp/xml';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CONTRACT_VERSION } from '../../functions/names.ts';
import type { Call } from '../../local/calls.ts';
import { readRequestBody } from '../../local/http.ts';
import { Lab } from '../../lab/lab.ts';
import { functionsByRole, permissions, readCalls, refusedCalls } from '../../lab/permissions.ts';
import { post } from '../../lab/requests.ts';
import { Runtime } from '../../lab/runtime.ts';

/**
 * The stack on one machine, led through everything that its functions do, with every AWS call recorded. The server is a
 * stand-in: it takes any request, and answers each ping as the nick in it says; `once` is silent only once.
 */
const OUT = '<error type="cancel"><not-acceptable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>';
const SILENT = '<error type="wait"><resource-constraint xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>';
const REMOTE = 'muc.example';
const assembly = process.env['PING_MUC_ASSEMBLY'] ?? '';

/** Permissions that no call of a function's own code uses. */
const ARGUED_FOR_FUNCTIONS: Readonly<Record<string, string>> = {
  'logs:CreateLogStream': 'Lambda writes the log in the name of the function',
  'logs:PutLogEvents': 'Lambda writes the log in the name of the function',
  'xray:PutTraceSegments': 'Lambda sends the traces in the name of the function',
  'xray:PutTelemetryRecords': 'Lambda sends the traces in the name of the function',
};
/** What Step Functions does in the name of the workflow; on one machine nothing calls AWS for it. */
const ARGUED_FOR_WORKFLOW: Readonly<Record<string, string>> = {
  'lambda:InvokeFunction': 'the task',
  'logs:CreateLogDelivery': 'the log, as Step Functions documents it',
  'logs:GetLogDelivery': 'the log, as Step Functions documents it',
  'logs:UpdateLogDelivery': 'the log, as Step Functions documents it',
  'logs:DeleteLogDelivery': 'the log, as Step Functions documents it',
  'logs:ListLogDeliveries': 'the log, as Step Functions documents it',
  'logs:PutResourcePolicy': 'the log, as Step Functions documents it',
  'logs:DescribeResourcePolicies': 'the log, as Step Functions documents it',
  'logs:DescribeLogGroups': 'the log, as Step Functions documents it',
  'xray:PutTraceSegments': 'the traces',
  'xray:PutTelemetryRecords': 'the traces',
  'xray:GetSamplingRules': 'the traces',
  'xray:GetSamplingTargets': 'the traces',
};

let lab: Lab;
let calls: readonly Call[];

async function standIn(address: string): Promise<void> {
  const asked = new Set<string>();
  const answer = (stanza: Element): string => {
    const { id, from, to } = stanza.attrs as Record<'id' | 'from' | 'to', string>;
    if (!stanza.is('iq')) return '';
    const nick = to.split('/')[1];
    const isSilent = nick === 'silent' || (nick === 'once' && !asked.has(id));
    const error = nick === 'out' ? OUT : isSilent ? SILENT : '';
    asked.add(id);
    return `<iq id="${id}" from="${to}" to="${from}" type="${error === '' ? 'result' : 'error'}">${error}</iq>`;
  };
  const server = createServer((request, response) => {
    void readRequestBody(request, 1_000_000).then((body) => {
      const answers: string[] = [];
      const parser = new Parser();
      parser.on('element', (stanza: Element) => answers.push(answer(stanza)));
      parser.write(body.toString());
      response.writeHead(200, { 'content-type': 'application/xmpp+xml' }).end(`<xmpp>${answers.join('')}</xmpp>`);
    });
  });
  server.listen(5280, address);
  await once(server, 'listening');
  lab.keep({
    stop: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  });
}

beforeAll(async () => {
  lab = await Lab.open();
  const host = lab.address(2);
  await standIn(host);
  const record = join(lab.directory, 'calls');
  const runtime = await Runtime.start(lab, { environment: { PING_MUC_RECORD_CALLS: record } });
  let at = (Date.now() - 60_000) * 1000;
  const room = `room@${REMOTE}`;
  const events = [
    ...['in', 'out', 'silent', 'once'].map((nick) => ({
      type: 'muc.joined',
      at: (at += 1),
      user: `juliet@${host}/${nick}`,
      room,
      nick,
    })),
    { type: 'muc.left', at: (at += 1), user: `juliet@${host}/gone`, room },
    {
      type: 's2s.closed',
      at: (at += 1),
      remote: REMOTE,
      direction: 'outgoing',
      delay: 1,
      timeout: 1,
      patience: 1,
      dry_run: false,
    },
  ];
  const body = JSON.stringify({ host, queue: { length: 0, oldest: 0 }, events });
  const reply = await post({ url: runtime.webhookUrl, secret: runtime.secret, body });
  expect([reply.status, reply.body]).toEqual([
    200,
    JSON.stringify({ accepted: events.length, rejected: [], version: CONTRACT_VERSION }),
  ]);
  const done = await runtime.line('check done');
  expect(done['totals']).toMatchObject({ joined: 2, left: 1, undecided: 1, notified: 2 });
  calls = await readCalls(record);
});
afterAll(() => lab.close());

it('every AWS call that the functions make is permitted', async () => {
  const made = [...(await functionsByRole(assembly)).values()].map(
    (name) => calls.filter(({ caller }) => caller === name).length,
  );
  expect(made.every((number) => number > 0)).toBe(true);
  expect(await refusedCalls(assembly, calls)).toEqual([]);
});

it('every action that a function is granted is used, on that very resource, or argued for', async () => {
  const functions = await functionsByRole(assembly);
  const unused: string[] = [];
  for (const [role, granted] of await permissions(assembly)) {
    const name = functions.get(role);
    const argued = name === undefined ? ARGUED_FOR_WORKFLOW : ARGUED_FOR_FUNCTIONS;
    for (const { action, resource } of granted) {
      const isUsed = calls.some((call) => call.caller === name && call.action === action && call.resource === resource);
      if (!isUsed && !(action in argued)) unused.push(`${role}: ${action} on ${resource}`);
    }
  }
  expect(unused).toEqual([]);
});

it('nothing is argued for that is not granted', async () => {
  const granted = [...(await permissions(assembly)).values()].flat().map(({ action }) => action);
  expect(
    Object.keys({ ...ARGUED_FOR_FUNCTIONS, ...ARGUED_FOR_WORKFLOW }).filter((action) => !granted.includes(action)),
  ).toEqual([]);
});
