import type { Context } from 'aws-lambda';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { type CheckState, firstState } from '../../functions/core/check-state.ts';
import type { CheckRequest } from '../../functions/core/events.ts';
import type { ServerAnswers } from '../../functions/adapters/probe.ts';
import type { ServerProbe } from '../../functions/check.ts';
import { ENV } from '../../functions/names.ts';
import { type Endpoint, listen } from '../../lab/endpoint.ts';

/** The check function between a scripted table and server: three joins, none of which their room knows. */
const HOST = 'example.net';
const REMOTE = 'muc.host';
const AT = Math.floor(Date.now() / 1000) * 1_000_000;
const JOINS = [1, 2, 3].map((n) => ({
  key: `room@${REMOTE}#user${n}@${HOST}/phone`,
  user: `user${n}@${HOST}/phone`,
  at: AT + n,
}));
const CLOSE: CheckRequest = {
  host: HOST,
  remote: REMOTE,
  at: AT + 10,
  delay: 1,
  timeout: 1,
  patience: 0,
  dryRun: false,
  reenter: false,
  cause: 'close',
};
const STATE = firstState(CLOSE, 'check', 1, AT / 1e6 - 1);

let table: Endpoint;
let server: Endpoint;
let handler: (event: CheckState | ServerProbe, context: Context) => Promise<CheckState | ServerAnswers>;
let check: (state: CheckState, context: Context) => Promise<CheckState>;
/** What the table answers to the nth delete of a row. */
let onDelete: (n: number) => readonly [status: number, body: object];
/** How often each row was to be deleted. */
let deletes: Map<string, number>;
/** What the server's API answers. */
let answeredStatus = 200;
let lines: Record<string, unknown>[];
/** The rows of CONTROL, by their sort keys. */
let controls: Record<string, object>;

const THROTTLED = [
  400,
  { __type: 'com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException', message: 'too much' },
] as const;
const DENIED = [400, { __type: 'com.amazon.coral.service#AccessDeniedException', message: 'not allowed' }] as const;
const DONE = [200, {}] as const;

function answerOf(target: string, body: string): readonly [number, object] {
  const Items = JOINS.map(({ key, at }) => ({
    sk: { S: key },
    at: { N: String(at) },
    nick: { S: 'nick' },
    state: { S: 'joined' },
  }));
  if (target === 'secretsmanager.GetSecretValue')
    return [200, { SecretString: JSON.stringify({ current: `whsec_${Buffer.alloc(32).toString('base64')}` }) }];
  if (target.endsWith('.Query')) return [200, { Items }];
  const { Key } = JSON.parse(body) as { Key: { pk: { S: string }; sk: { S: string } } };
  if (target.endsWith('.GetItem') && Key.pk.S === 'CONTROL') return [200, { Item: controls[Key.sk.S] }];
  if (!target.endsWith('.DeleteItem')) return DONE;
  const n = (deletes.get(body) ?? 0) + 1;
  deletes.set(body, n);
  return onDelete(n);
}

beforeAll(async () => {
  table = await listen(({ headers, body }, response) => {
    const [status, answer] = answerOf(String(headers['x-amz-target']), body.toString());
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.0' }).end(JSON.stringify(answer));
  });
  server = await listen(({ body }, response) => {
    const error = '<error type="cancel"><not-acceptable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>';
    const answers = [...body.toString().matchAll(/<iq [^>]*id="([^"]*)"/g)].map(
      ([, id]) => `<iq type="error" id="${id}">${error}</iq>`,
    );
    // of those who re-enter, the first is back, the second with a gap, and the third is refused
    const back = (id: string, more = ''): string =>
      `<presence id="${id}"><x xmlns="http://jabber.org/protocol/muc#user"><status code="110"/></x>${more}</presence>`;
    const gap = '<reentry xmlns="urn:ping-muc:0" missed="yes"/>';
    const reentries = [...body.toString().matchAll(/<presence id="([^"]*)"/g)].map(([, id = '']) =>
      id.endsWith('3')
        ? `<presence type="error" id="${id}">${error}</presence>`
        : back(id, id.endsWith('2') ? gap : ''),
    );
    response
      .writeHead(answeredStatus, { 'retry-after': '60' })
      .end(`<xmpp>${[...answers, ...reentries].join('')}</xmpp>`);
  });
  for (const name of [...Object.values(ENV), 'AWS_REGION', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'])
    vi.stubEnv(name, 'test');
  for (const service of ['DYNAMODB', 'SECRETS_MANAGER']) vi.stubEnv(`AWS_ENDPOINT_URL_${service}`, table.url);
  vi.stubEnv(ENV.serverApiUrl, server.url);
  ({ handler } = await import('../../functions/check.ts'));
  check = handler as typeof check;
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await table.close();
  await server.close();
});
beforeEach(() => {
  deletes = new Map();
  lines = [];
  controls = {};
  vi.spyOn(process.stdout, 'write').mockImplementation(
    (line) => lines.push(JSON.parse(String(line)) as Record<string, unknown>) > 0,
  );
  return () => vi.restoreAllMocks();
});

const run = (remaining = 900_000, changes: Partial<CheckState> = {}): Promise<CheckState> =>
  check({ ...STATE, ...changes }, { awsRequestId: 'request', getRemainingTimeInMillis: () => remaining } as Context);
const warned = (): unknown[] =>
  lines.filter(({ level }) => level === 'WARN').map(({ message, user, room, detail }) => [message, user, room, detail]);
const notDeleted = (detail: string): unknown =>
  JOINS.map(({ user }) => ['row not deleted; the next check deletes it', user, `room@${REMOTE}`, detail]);

it('deletes rows even if the table throttles for longer than a webhook would wait', async () => {
  onDelete = (n) => (n <= 5 ? THROTTLED : DONE);
  expect(await run()).toMatchObject({ next: 'done', totals: { left: 3, notified: 3 } });
  expect([...deletes.values()]).toEqual([6, 6, 6]);
  expect(warned()).toEqual([]);
}, 20_000);

it('does not fail if rows cannot be deleted: the users are notified, and the log names the rows', async () => {
  onDelete = () => DENIED;
  expect(await run()).toMatchObject({ next: 'done', totals: { left: 3, notified: 3 } });
  expect(warned()).toEqual(notDeleted('not allowed'));
  expect(lines.map(({ message }) => message)).toContain('check done');
});

it('leaves rows to the next check if there is no time to delete them', async () => {
  onDelete = () => DONE;
  expect(await run(30_000)).toMatchObject({ totals: { left: 1, notified: 1 } });
  expect(deletes.size).toBe(0);
  expect(warned()).toEqual((notDeleted('no time was left for it') as unknown[]).slice(0, 1));
});

it('a probe asks the server for nothing, without a signature and with one, and returns the answers', async () => {
  answeredStatus = 401;
  const [before, context] = [server.received.length, { awsRequestId: 'request' } as Context];
  expect(await handler({ probe: HOST }, context)).toMatchObject({
    url: `${server.url}/stanzas`,
    unsigned: { status: 401, body: '<xmpp></xmpp>' },
    signed: { status: 401 },
  });
  const requests = server.received.slice(before);
  expect(requests.map(({ headers }) => 'webhook-signature' in headers)).toEqual([false, true]);
  expect(requests.map(({ body }) => body.toString())).toEqual(Array(2).fill('<xmpp timeout="1"/>'));
  answeredStatus = 200;
});

it('counts and logs which users are back, which were refused, and whose history has a gap', async () => {
  onDelete = () => DONE;
  expect(await run(900_000, { reenter: true })).toMatchObject({
    next: 'done',
    totals: { left: 3, reentered: 2, gaps: 1, notified: 1, refused: 1 },
  });
  expect(lines.find(({ message }) => message === 'check done')).toMatchObject({
    VerdictLeft: 3,
    Reentries: 2,
    HistoryGaps: 1,
    Notices: 1,
    ReentriesRefused: 1,
  });
  const ended = lines.filter(({ message }) => message === 'join ended').map(({ user, answers }) => [user, answers]);
  expect(Object.fromEntries(ended)).toEqual({
    [`user1@${HOST}/phone`]: ['not-acceptable', 'result'],
    [`user2@${HOST}/phone`]: ['not-acceptable', 'result, with lines missing'],
    [`user3@${HOST}/phone`]: ['not-acceptable', 'not-acceptable', 'none'],
  });
});

it('measures, once it has an answer, how late it came, and how many users were told in time', async () => {
  onDelete = () => DONE;
  const before = Date.now();
  await run(900_000, { closedAt: AT / 1e6 });
  const done = lines.find(({ message }) => message === 'check done') as Record<string, number>;
  const [least, most] = [before - AT / 1000, Date.now() - AT / 1000];
  expect(done['AnswerLateness']).toBeGreaterThanOrEqual(least - CLOSE.delay * 1000);
  expect(done['CloseToNotice']).toBeGreaterThanOrEqual(least);
  expect(done['CloseToNotice']).toBeLessThanOrEqual(most);
  expect(done).toMatchObject({ NoticesInTime: 3, NoticesLate: 0 });
});

it('measures the first answer once a check, and those who were told late as late', async () => {
  onDelete = () => DONE;
  await run(900_000, { closedAt: AT / 1e6 - 3600, totals: { ...STATE.totals, pinged: 1 } });
  const done = lines.find(({ message }) => message === 'check done');
  expect(done).not.toHaveProperty('AnswerLateness');
  expect(done).toMatchObject({ NoticesInTime: 0, NoticesLate: 3 });
});

it('says of an invocation that ends in an error whether the server is out of reach, busy, or neither', async () => {
  const interrupted = async (serverStatus: number): Promise<unknown> => {
    answeredStatus = serverStatus;
    lines = [];
    await expect(run()).rejects.toThrow();
    answeredStatus = 200;
    return lines.find(({ message }) => message === 'check interrupted');
  };
  const [none, level] = [{ ServerUnreachable: 0, ServerBusy: 0, CheckFaults: 0 }, 'ERROR'];
  expect(await interrupted(502)).toMatchObject({ ...none, level, ServerUnreachable: 1 });
  expect(await interrupted(429)).toMatchObject({ ...none, level, ServerBusy: 1 });
  expect(await interrupted(400)).toMatchObject({ ...none, level, CheckFaults: 1 });
}, 20_000);

it('counts in a dry run the users who would be back, in their own metric', async () => {
  await run(900_000, { reenter: true, dryRun: true });
  const done = lines.find(({ message }) => message === 'check done');
  expect(done).toMatchObject({ DryRunReentries: 3, DryRunNotices: 0 });
  expect(done).not.toHaveProperty('Reentries');
});

describe('an operator’s controls', () => {
  const limit = { notices: 1, share: 0.5 };
  const line = (message: string): Record<string, unknown> | undefined =>
    lines.find((one) => one['message'] === message);
  const metrics = (of: Record<string, unknown> | undefined): string[] =>
    Object.keys(of ?? {}).filter((name) => /^(?:Checks|CheckL|Pings)/.test(name));
  const now = (): number => Date.now() / 1000;
  beforeEach(() => {
    onDelete = () => DONE;
  });

  it('a pause: asks nobody, and emits ChecksPaused alone; afterwards the check is not late', async () => {
    controls['pause'] = { since: { N: '1' } };
    const paused = await run();
    expect(paused).toMatchObject({ next: 'wait', paused: true, totals: { pinged: 0 } });
    expect(metrics(line('check paused by an operator'))).toEqual(['ChecksPaused']);
    controls = {};
    await run(900_000, { ...paused, stoppedAt: now() - 3600, due: now() - 3600 });
    expect(Number(line('check done')?.['AnswerLateness'])).toBeLessThan(60_000);
  });

  it('a hold: emits ChecksHeld in each invocation, until it is released', async () => {
    const held = await run(900_000, { limit });
    expect(held).toMatchObject({ held: true, totals: { notified: 1 } });
    const message = 'check held: it would notify more users than ping_muc_notice_limit';
    expect(line(message)).toMatchObject({ ChecksHeld: 1, Notices: 1 });
    lines = [];
    expect(await run(900_000, held)).toEqual(held);
    expect(metrics(line(message))).toEqual(['ChecksHeld']);
    controls[`check#${held.id}`] = { decision: { S: 'release' } };
    lines = [];
    const released = await run(900_000, held);
    expect(released).not.toHaveProperty('held');
    expect(lines.filter((one) => one['ChecksReleased'] === 1)).toHaveLength(1);
    expect(lines.filter((one) => 'ChecksHeld' in one)).toEqual([]);
  });

  it('a drop: emits ChecksDropped; without a decision for a day, that is an error', async () => {
    const held = await run(900_000, { limit });
    const old = { ...held, stoppedAt: now() - 86_401 };
    controls[`check#${held.id}`] = { decision: { S: 'drop' } };
    expect(await run(900_000, old)).toMatchObject({ next: 'done', dropped: true });
    expect(metrics(line('check dropped'))).toEqual(['ChecksDropped']);
    expect(lines.filter(({ level }) => level === 'ERROR')).toEqual([]);
    controls = {};
    lines = [];
    expect(await run(900_000, old)).toMatchObject({ next: 'done', dropped: true, expired: true });
    expect(line('check dropped')).toMatchObject({ ChecksDropped: 1 });
    expect(lines.filter(({ level }) => level === 'ERROR')).toMatchObject([
      { message: 'check dropped: it was held for a day, and no operator has decided' },
    ]);
  });
});
