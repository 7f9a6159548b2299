import { randomUUID } from 'node:crypto';
import xml, { type Element } from '@xmpp/xml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import type { LogLine } from '../../lab/runtime.ts';
import { NS_DISCO_INFO } from '../../lab/scripted-muc.ts';
import { Scale } from '../../lab/scale.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import type { User } from '../../lab/user.ts';

/**
 * Rules 5 to 7 (docs/rules.md) with many joins: the streams break again during a check, and no user who is still in is
 * notified. `npm run bench -- flap` does the same with 5,000 joins at 25 times.
 */
const JOINS = 600;
/** Seconds after the check is due: while it connects, pings and reads the answers. */
const MOMENTS = [0.02, 0.1, 0.2, 0.3];
const FIVE_TIMES = [0.1, 0.3, 0.2, 0.1];
const KEPT = (): boolean => false;
const HALF_LOST = (index: number): boolean => index % 2 === 0;

describe.each([
  ['with stream management', true],
  ['without', false],
])('a link between real servers, %s,', (_what, isManaged) => {
  let scale: Scale;
  beforeAll(async () => {
    scale = await Scale.open({ joins: JOINS, timeout: 5, isManaged });
  });
  afterAll(() => scale.close());

  const flap = async (isLost: (index: number) => boolean, again: readonly number[]): Promise<object> => {
    await scale.enter();
    const { wrong, missed, double } = await scale.flap(isLost, again);
    return { wrong, missed, double };
  };
  const right = { wrong: 0, missed: 0, double: 0 };

  it.each(MOMENTS)(
    'that breaks again %s s into the check: nobody is notified',
    { timeout: 120_000 },
    async (moment) => {
      expect(await flap(KEPT, [moment])).toEqual(right);
    },
  );

  it(
    'that breaks five times in a row, each time during a check: nobody is notified',
    { timeout: 120_000 },
    async () => {
      expect(await flap(KEPT, FIVE_TIMES)).toEqual(right);
    },
  );

  it(
    'that breaks again while every second join is lost: exactly those are notified, once',
    { timeout: 120_000 },
    async () => {
      expect(await flap(HALF_LOST, [0.1])).toEqual(right);
    },
  );

  it(
    'that breaks five times in a row while every second join is lost: exactly those are notified, once',
    { timeout: 120_000 },
    async () => {
      expect(await flap(HALF_LOST, FIVE_TIMES)).toEqual(right);
    },
  );
});

/** Sends a query to a service. Returns whether the service has answered: an error means that the stream has ended. */
async function ask(user: User, service: string): Promise<boolean> {
  const id = randomUUID();
  await user.send(xml('iq', { type: 'get', id, to: service }, xml('query', { xmlns: NS_DISCO_INFO })));
  const answer = (): Element | undefined => user.received.find(({ stanza }) => stanza.attrs['id'] === id)?.stanza;
  return (await until(`${service} answers`, answer)).attrs['type'] === 'result';
}

/** Rule 6: an error that mod_smacks returns when a stream ends says nothing about the host. */
describe('a link that breaks in the last round, too late for another check to take over', () => {
  const DELAY = 4;
  const TIMEOUT = 8;
  /** Between connecting and the next close, so that closes are less than a delay apart, and each postpones the check. */
  const BETWEEN = 1;
  /** The last close comes at the earliest then, and so early that five delays after the first do not end its wait. */
  const LAST_CLOSE_AFTER = 11;
  /** Later than five delays, and than the delay and two time-outs, after the first close; pings are still awaited. */
  const BREAKS_AFTER = 21.5;
  const USERS = ['juliet', 'romeo', 'nurse'];
  let testBed: TwoServers;
  const users: User[] = [];

  beforeAll(async () => {
    const settings = { ping_muc_delay: DELAY, ping_muc_timeout: TIMEOUT, ping_muc_patience: 0 };
    testBed = await TwoServers.open(settings, { production: { bidi: false } });
    users.push(...(await Promise.all(USERS.map((name) => testBed.user(name)))));
    await Promise.all(users.map((user, index) => user.join(testBed.room('verona'), USERS[index] ?? '')));
    await until('all are recorded', () => testBed.recorded() >= USERS.length);
  });
  afterAll(() => testBed.close());

  it('nobody is notified: the lost pings are sent again', { timeout: 90_000 }, async () => {
    const link = testBed.away.links.get(testBed.muc);
    const connect = async (): Promise<void> => {
      for (let isAnswered = false; !isAnswered;) isAnswered = await ask(users[0] as User, testBed.muc);
    };
    const first = Date.now();
    const elapsed = (): number => (Date.now() - first) / 1000;
    for (;;) {
      const isLast = elapsed() >= LAST_CLOSE_AFTER;
      testBed.dropStreams();
      await connect();
      if (isLast) break;
      await sleep(BETWEEN * 1000);
    }
    link?.hold('toServer');
    await sleep(first + BREAKS_AFTER * 1000 - Date.now());
    const ended = (): readonly LogLine[] => testBed.runtime.lines.filter(({ message }) => message === 'check done');
    expect(ended()).toEqual([]);
    testBed.dropStreams();
    link?.release('toServer');

    // the check during which the link broke, and the check of the newest close
    await until('both checks are done', () => ended().length === 2, 30_000);
    const none = { left: 0, undecided: 0, notified: 0 };
    expect(ended().map(({ totals }) => totals)).toMatchObject([{ joined: USERS.length, ...none }, none]);
    expect(testBed.runtime.lines.some(({ message }) => message === 'check will ask again')).toBe(true);
    await sleep(500);
    expect(users.flatMap((user) => user.notices())).toEqual([]);
  });
});
