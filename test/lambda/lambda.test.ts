import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Table } from '../../functions/adapters/table.ts';
import { type CheckState, firstState } from '../../functions/core/check-state.ts';
import type { CheckRequest, JoinedEvent } from '../../functions/core/events.ts';
import { decodeSecret, sign } from '../../functions/core/signature.ts';
import { ERRORS } from '../../functions/names.ts';
import { type Endpoint, listen } from '../../lab/endpoint.ts';
import { Lab, sleep, until } from '../../lab/lab.ts';
import { Lambda } from '../../lab/lambda.ts';
import { Link } from '../../lab/link.ts';
import { Prosody } from '../../lab/prosody.ts';
import { startSink } from '../../lab/sink.ts';
import { type Assembly, readAssembly } from '../../local/assembly.ts';
import { startAwsEndpoint } from '../../local/aws-endpoint.ts';
import { type TestTable, startTable } from '../unit/dynamodb.ts';

/**
 * The deployed bundles, run by AWS's own emulator of Lambda and runtime client, with a real Prosody.
 *
 *   webhook function ──▶ link ──▶ table
 *   check function   ──▶ link ──▶ table,  ──▶ link ──▶ Prosody with the module
 */
const SECRET = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;
const MODULES = fileURLToPath(new URL('../../prosody', import.meta.url));
const [API_PORT, TABLE_PORT] = [15_280, 8000] as const;
/** Longer than the functions use an idle connection. */
const FREEZE_MS = 6000;

let lab: Lab;
let assembly: Assembly;
let host: string;
let embedded: TestTable;
let table: Table;
let toTable: Link;
let toServer: Link;
let environment: Readonly<Record<string, string>>;
let webhook: Lambda;
let check: Lambda;
let at = Date.now() * 1000;
let remotes = 0;

beforeAll(async () => {
  lab = await Lab.open();
  assembly = await readAssembly(process.env['PING_MUC_ASSEMBLY'] ?? '');
  host = lab.address(2);
  const { url } = await startSink(lab);
  await Prosody.start(lab, {
    host,
    global: `plugin_paths = { ${JSON.stringify(MODULES)} }`,
    forHost: `modules_enabled = { "ping_muc_webhook" }\nping_muc_webhook_url = "${url}"\nping_muc_secret = "${SECRET}"`,
  });
  const [{ name } = { name: '' }] = assembly.tables;
  embedded = await startTable(name);
  table = new Table(embedded.client, name);
  const { hostname, port } = new URL(embedded.endpoint);
  toTable = new Link(lab.address(1), TABLE_PORT, Number(port), hostname);
  toServer = new Link(host, API_PORT, 5280);
  for (const link of [toTable, toServer]) await lab.keep(link).mend();
  const secrets = new Map(assembly.secrets.map((arn) => [arn, JSON.stringify({ current: SECRET })]));
  const aws = await startAwsEndpoint({ executions: new Map(), secrets, record: undefined });
  lab.keep({ stop: () => aws.close() });
  environment = {
    AWS_ENDPOINT_URL: aws.url,
    AWS_ENDPOINT_URL_DYNAMODB: `http://${lab.address(1)}:${TABLE_PORT}`,
    SERVER_API_URL: `http://${host}:${API_PORT}/ping_muc`,
  };
  webhook = await start('Webhook', 10);
  check = await start('Check', 11);
});
afterAll(async () => {
  await lab.close();
  await embedded.close();
});
beforeEach(async () => {
  await Promise.all([toTable.mend(), toServer.mend()]);
});

/** @param n the number of its address */
function start(name: 'Webhook' | 'Check', n: number, more: Record<string, string> = {}, timeoutSeconds?: number) {
  const definition = assembly.functions.find((one) => one.name.startsWith(name));
  if (definition === undefined) throw new Error(`the stack has no function ${name}`);
  return Lambda.start(lab, definition, {
    address: lab.address(n),
    environment: { ...environment, ...more },
    ...(timeoutSeconds === undefined ? {} : { timeoutSeconds }),
  });
}

const newRemote = (): string => `muc${(remotes += 1)}.example`;
const newJoin = (remote = newRemote()): JoinedEvent => ({
  type: 'muc.joined',
  host,
  remote,
  room: `room@${remote}`,
  user: `user@${host}/${randomUUID()}`,
  nick: 'nick',
  at: (at += 1),
});

/** What API Gateway makes of a webhook with so many joins. */
function webhookOf(count: number, signed = true): object {
  const events = Array.from({ length: count }, () => newJoin()).map(
    ({ host: _host, remote: _remote, ...event }) => event,
  );
  const body = JSON.stringify({ host, events });
  const now = Math.floor(Date.now() / 1000);
  const headers = signed ? sign([decodeSecret(SECRET)], `msg_${randomUUID()}`, now, Buffer.from(body)) : {};
  return { headers, body, isBase64Encoded: false };
}

/** A check of one user whose session has ended: the server answers that it is gone, and the row is deleted. */
async function checkOfOne(timeout = 5): Promise<CheckState> {
  const remote = newRemote();
  await table.record(newJoin(remote), Date.now() / 1000);
  const close: CheckRequest = {
    host,
    remote,
    at: (at += 1),
    delay: 0,
    timeout,
    patience: 0,
    dryRun: false,
    reenter: false,
    cause: 'close',
  };
  await table.recordClose(close, Date.now() / 1000);
  return firstState(close, randomUUID(), 0, Date.now() / 1000);
}

const ACCEPTED = (count: number): object => ({
  statusCode: 200,
  body: JSON.stringify({ accepted: count, rejected: [] }),
});
const ONE_GONE = { next: 'done', totals: { pinged: 1, gone: 1 } };

describe('both functions', () => {
  it('are initialised and run, and write nothing but their log', async () => {
    expect(await webhook.invoke(webhookOf(1, false))).toMatchObject({ statusCode: 401 });
    expect(await webhook.invoke(webhookOf(2))).toMatchObject(ACCEPTED(2));
    expect(await check.invoke(await checkOfOne())).toMatchObject(ONE_GONE);
    await until('both have logged all', () => webhook.lines.length === 2 && check.lines.length === 2);
    expect(webhook.lines.map(({ message }) => message)).toEqual(['webhook refused', 'webhook stored']);
    expect(check.lines.map(({ message }) => message)).toEqual(['join ended', 'check done']);
    expect([webhook.otherLines, check.otherLines]).toEqual([[], []]);
  });
});

describe('the names of errors, by which the workflow retries, are those of the source', () => {
  let server: Endpoint;
  let busy: Lambda;
  beforeAll(async () => {
    server = await listen((_request, response) => response.writeHead(503, { 'retry-after': '60' }).end());
    busy = await start('Check', 12, { SERVER_API_URL: server.url });
  });
  afterAll(() => server.close());

  it('of a server that is out of reach', async () => {
    await toServer.cut();
    await expect(check.invoke(await checkOfOne())).rejects.toMatchObject({ name: ERRORS.serverUnreachable });
  });

  it('of a server that is busy', async () => {
    await expect(busy.invoke(await checkOfOne())).rejects.toMatchObject({ name: ERRORS.serverBusy });
  });

  it('of a fault that no retry can change', async () => {
    await expect(check.invoke({ ...(await checkOfOne()), version: 99 })).rejects.toMatchObject({
      name: 'StateVersionError',
    });
  });
});

describe('an invocation that takes too long', () => {
  it('ends with its process, and the next one is initialised and runs', async () => {
    const short = await start('Check', 13, {}, 2);
    expect(await short.invoke(await checkOfOne())).toMatchObject({ totals: { gone: 1 } });
    const before = await short.pid();
    toTable.hold('toServer');
    try {
      await expect(short.invoke(await checkOfOne())).rejects.toMatchObject({
        name: 'Sandbox.Timedout',
      });
    } finally {
      toTable.release('toServer');
    }
    expect(await short.invoke(await checkOfOne())).toMatchObject({ totals: { gone: 1 } });
    expect(await short.pid()).not.toBe(before);
  });
});

describe('connections that a gateway forgets while the functions are frozen', () => {
  it.each([
    ['so that their packets are dropped', 'drop'],
    ['so that their first packet is answered by a reset', 'reset'],
  ] as const)('%s, are not used by the next invocation', async (_how, packets) => {
    const both = [webhook, check];
    expect(await webhook.invoke(webhookOf(8))).toMatchObject(ACCEPTED(8));
    expect(await check.invoke(await checkOfOne())).toMatchObject(ONE_GONE);
    for (const one of both) await one.freeze();
    for (const link of [toTable, toServer]) link.forget(packets);
    await sleep(FREEZE_MS);
    expect(await webhook.thaw(webhookOf(8))).toMatchObject(ACCEPTED(8));
    expect(await check.thaw(await checkOfOne())).toMatchObject(ONE_GONE);
    expect([toTable.lostBytes, toServer.lostBytes]).toEqual([0, 0]);
  });
});
