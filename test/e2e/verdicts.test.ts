import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Totals } from '../../functions/core/check-state.ts';
import { DEFAULT_REASON } from '../../functions/core/stanzas.ts';
import { sleep, until } from '../../lab/lab.ts';
import { type Reaction, as, error, held, rawError, result, silence, through } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import type { LinkControls } from '../../lab/threaded-link.ts';
import type { User } from '../../lab/user.ts';

/**
 * Rules 6 to 9 (docs/rules.md), through real servers and the whole workflow: each row of the table in rule 6, undecided
 * users, and the operator's settings. Each group of tests runs its checks first, and then looks at the results.
 */
const DELAY = 1;
const TIMEOUT = 3;
const PATIENCE = 10;
/** Without `ping_muc_reenter`, nobody is brought back. */
const NO_REENTRY = { reentered: 0, gaps: 0, refused: 0 };
/** The chat services: each group, and each fault of a host, has its own. */
const [ROWS_HOST, BACK, OUT, SILENT, IMPATIENT, DRY, EXCLUDED, FALSE] = [0, 1, 2, 3, 4, 5, 6, 7];
let testBed: ScriptedRooms;
let juliet: User;

beforeAll(async () => {
  testBed = await ScriptedRooms.open({ ping_muc_delay: DELAY, ping_muc_timeout: TIMEOUT }, 8);
  juliet = await testBed.user('juliet');
});
afterAll(() => testBed.close());

interface Check {
  /** When its close occurred, and when the next check of the same host was caused, in milliseconds. */
  readonly at: number;
  readonly end: number;
  readonly totals: Totals;
}

const room = (service: number, name: string): string => testBed.muc(service).room(name);
const linkOf = (service: number): LinkControls | undefined => testBed.away.links.get(testBed.muc(service).domain);
const joinRooms = (service: number, names: readonly string[]): Promise<unknown> =>
  Promise.all(names.map((name) => testBed.join(juliet, room(service, name), 'Juliet')));
/** Waits for the end of the check of a close. */
const done = async (at: number, service: number): Promise<Check> => ({
  at,
  end: Infinity,
  totals: await testBed.checkDone(at, testBed.muc(service).domain),
});
/** Waits for the end of the first round of a check. */
const firstRound = (at: number, service: number): Promise<unknown> =>
  until(
    'the first round is over',
    () =>
      ['check will ask again', 'check done'].flatMap((message) => testBed.lines(message, at, testBed.muc(service)))[0],
    20_000,
  );
/** How often the functions asked the server for a ping to an occupant, or to the occupants of a room, in a check. */
const pinged = ({ at, end }: Check, to: string): number =>
  testBed.pinged(at, end).filter((occupant) => occupant === to || occupant.startsWith(`${to}/`)).length;
const notices = (user: User, from: string): ReturnType<User['notices']> =>
  user.notices().filter(({ stanza }) => String(stanza.attrs['from']).startsWith(`${from}/`));
const reasons = (user: User, from: string): readonly (string | null)[] =>
  notices(user, from).map(
    ({ stanza }) =>
      stanza.getChild('x', 'http://jabber.org/protocol/muc#user')?.getChild('item')?.getChildText('reason') ?? null,
  );
const notifiedAt = (from: string): number | undefined => notices(juliet, from)[0]?.at;

/** Answers to a row's pings that the server did not accept as such, and that reached the client. */
function stray(row: { readonly name: string }): readonly { at: number; after: number }[] {
  const questions = testBed.muc().asked.filter(({ kind, room: to }) => kind === 'ping' && to === roomOf(row));
  return juliet.received.flatMap(({ at, stanza }) => {
    const question = questions.find(({ id }) => id === stanza.attrs['id']);
    return stanza.is('iq') && question !== undefined ? [{ at, after: at - question.at }] : [];
  });
}

interface Row {
  readonly what: string;
  readonly ping: Reaction;
  readonly disco?: Reaction;
  readonly verdict: 'joined' | 'left' | 'undecided';
  /** The reason in the notice, if there is a notice; by default DEFAULT_REASON. */
  readonly reason?: string;
}

const noSuchItem = error('cancel', 'item-not-found');
const forged =
  (condition: string, more = ''): Reaction =>
  (question) =>
    error('cancel', condition, { by: testBed.home.host, more })(question);
const tooLate = Promise.withResolvers<unknown>();

/** Gives each row its own room, in the order of the rows. */
function named(rows: readonly Row[]): readonly (Row & { readonly name: string })[] {
  return rows.map((row, index) => ({ ...row, name: `row-${String(index).padStart(2, '0')}` }));
}

/** The first row is pinged alone, so its result must not count for the whole host. */
const ROWS = named([
  { what: 'a result', ping: result(), verdict: 'joined' },
  {
    what: 'a result with an odd payload',
    ping: result('<query xmlns="jabber:iq:version"><name>&lt;odd&gt;</name></query><error type="cancel"/>'),
    verdict: 'joined',
  },
  { what: 'a late result within the time-out', ping: held(() => sleep(1000), result()), verdict: 'joined' },
  { what: 'service-unavailable', ping: error('cancel', 'service-unavailable'), verdict: 'joined' },
  { what: 'feature-not-implemented', ping: error('cancel', 'feature-not-implemented'), verdict: 'joined' },
  { what: 'item-not-found, and the room exists', ping: noSuchItem, verdict: 'joined' },
  {
    what: 'item-not-found, and the room refuses disco#info',
    ping: noSuchItem,
    disco: error('auth', 'forbidden'),
    verdict: 'joined',
  },
  {
    what: 'item-not-found, and the room does not exist',
    ping: error('cancel', 'item-not-found', { text: 'No such room' }),
    disco: noSuchItem,
    verdict: 'left',
    reason: 'No such room',
  },
  {
    what: 'item-not-found, and the room does not answer disco#info',
    ping: noSuchItem,
    disco: silence,
    verdict: 'undecided',
  },
  {
    what: 'item-not-found, and the room answers disco#info with an error of type wait',
    ping: noSuchItem,
    disco: error('wait', 'resource-constraint'),
    verdict: 'undecided',
  },
  { what: 'remote-server-not-found', ping: error('cancel', 'remote-server-not-found'), verdict: 'undecided' },
  { what: 'remote-server-timeout', ping: error('cancel', 'remote-server-timeout'), verdict: 'undecided' },
  {
    what: 'an error of type wait',
    ping: error('wait', 'resource-constraint', { text: 'Busy' }),
    verdict: 'undecided',
    reason: 'Busy',
  },
  {
    what: 'an error of type wait with not-acceptable',
    ping: error('wait', 'not-acceptable'),
    verdict: 'undecided',
  },
  { what: 'no answer', ping: silence, verdict: 'undecided' },
  { what: 'a result after the time-out', ping: held(() => tooLate.promise, result()), verdict: 'undecided' },
  {
    what: 'a result from another occupant',
    ping: as(({ room }) => `${room}/Somebody`, result()),
    verdict: 'undecided',
  },
  { what: 'a result from the room itself', ping: as(({ room }) => room, result()), verdict: 'undecided' },
  {
    what: 'a result with the right id from another host',
    ping: (question) => through(testBed.muc(FALSE), result())(question),
    verdict: 'undecided',
  },
  { what: 'not-acceptable', ping: error('cancel', 'not-acceptable'), verdict: 'left' },
  {
    what: 'not-acceptable with a text',
    ping: error('cancel', 'not-acceptable', { text: '  You are not in here  ' }),
    verdict: 'left',
    reason: 'You are not in here',
  },
  {
    what: 'not-acceptable with an empty text',
    ping: error('cancel', 'not-acceptable', { text: ' \n ' }),
    verdict: 'left',
  },
  { what: 'not-allowed', ping: error('cancel', 'not-allowed'), verdict: 'left' },
  { what: 'bad-request', ping: error('modify', 'bad-request'), verdict: 'left' },
  { what: 'forbidden', ping: error('auth', 'forbidden'), verdict: 'left' },
  { what: 'an unknown error', ping: error('cancel', 'gone-fishing'), verdict: 'left' },
  { what: 'an error without a condition', ping: rawError('<error type="cancel"/>'), verdict: 'left' },
  { what: 'an iq of type error without an error', ping: rawError(''), verdict: 'left' },
  {
    what: 'an error text of 100 kB',
    ping: error('cancel', 'not-acceptable', { text: '€'.repeat(33_334) }),
    verdict: 'left',
    reason: `${'€'.repeat(255)}…`,
  },
  {
    what: 'an error text of 257 characters beyond the BMP',
    ping: error('cancel', 'not-acceptable', { text: '🌅'.repeat(257) }),
    verdict: 'left',
    reason: `${'🌅'.repeat(255)}…`,
  },
  {
    what: 'an error text with markup',
    ping: error('cancel', 'not-acceptable', { text: '<b>&amp;</b> "\'>]]>' }),
    verdict: 'left',
    reason: '<b>&amp;</b> "\'>]]>',
  },
  {
    what: 'an error with elements in its text',
    ping: rawError(
      '<error type="cancel"><not-acceptable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/>' +
        '<text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">You<b>!</b></text></error>',
    ),
    verdict: 'left',
    reason: 'You',
  },
  {
    what: 'a recipient-unavailable forged in the name of our own server',
    ping: forged('recipient-unavailable'),
    verdict: 'left',
  },
  { what: 'a conflict forged in the name of our own server', ping: forged('conflict'), verdict: 'left' },
  {
    what: 'a remote-server-timeout forged in the name of our own server',
    ping: forged('remote-server-timeout', '<no-answer xmlns="urn:ping-muc:0"/>'),
    verdict: 'undecided',
  },
]);

const roomOf = ({ name }: { readonly name: string }): string => testBed.muc().room(name);
/** Rows whose answer arrives in time, but from another sender. */
const FALSE_ROWS = ROWS.filter(({ what }) => what.startsWith('a result from') || what.endsWith('from another host'));
const withVerdict = (verdict: Row['verdict']): number => ROWS.filter((row) => row.verdict === verdict).length;

/** More joins on the host of the rows. */
const NURSES = 10;
const [FULL, ENDED, REPLACED, GIVEN_UP] = ['row-full', 'row-ended', 'row-replaced', 'row-given-up'];

describe('the answer to a ping', () => {
  const nurses: User[] = [];
  let romeo: User;
  /** The check of all rows, and the next one, which all rooms answer. */
  let first: Check;
  let second: Check;

  async function enterRows(): Promise<void> {
    const muc = testBed.muc(ROWS_HOST);
    romeo = await testBed.user('romeo');
    const sessions = Array.from({ length: NURSES }, (_, n) => testBed.user('nurse', `session-${n}`));
    nurses.push(...(await Promise.all(sessions)));
    await Promise.all([
      joinRooms(ROWS_HOST, [...ROWS.map(({ name }) => name), REPLACED, GIVEN_UP]),
      joinRooms(FALSE, ['warm']),
      ...nurses.map((user, n) => testBed.join(user, muc.room(FULL), `nurse ${n}`)),
      testBed.join(romeo, muc.room(ENDED), 'Romeo'),
    ]);
  }

  function scriptRows(): void {
    const muc = testBed.muc(ROWS_HOST);
    for (const row of ROWS) {
      muc.script('ping', roomOf(row), row.ping);
      muc.script('disco', roomOf(row), row.disco);
    }
    for (const kind of ['ping', 'disco'] as const) muc.script(kind, muc.room(FULL), noSuchItem);
  }

  /** Joins that end, or are replaced, after the check has read them. */
  async function endJoins(): Promise<void> {
    await romeo.leaveServer();
    await joinRooms(ROWS_HOST, [REPLACED]);
    await juliet.leave(room(ROWS_HOST, GIVEN_UP), 'Juliet');
    await testBed.waitForHistory(room(ROWS_HOST, GIVEN_UP), ['joined Juliet', 'left']);
  }

  /** Closes the stream, and does something when the check has read its joins, and before it pings. */
  async function checkRows(beforePings: () => Promise<void>): Promise<Check> {
    const muc = testBed.muc(ROWS_HOST);
    const begun = Promise.withResolvers<undefined>();
    const mayPing = Promise.withResolvers<undefined>();
    testBed.stanzas.interceptor.before = (body) => {
      if (!body.includes(muc.domain)) return undefined;
      begun.resolve(undefined);
      return mayPing.promise;
    };
    const at = testBed.dropOutgoing(muc);
    await begun.promise;
    await beforePings();
    mayPing.resolve(undefined);
    return done(at, ROWS_HOST);
  }

  beforeAll(async () => {
    const muc = testBed.muc(ROWS_HOST);
    await testBed.set({ ping_muc_patience: PATIENCE });
    scriptRows();
    await enterRows();
    const check = await checkRows(endJoins);
    tooLate.resolve(undefined);
    await testBed.settle(juliet, muc);
    for (const row of ROWS) muc.script('ping', roomOf(row), result());
    second = await done(testBed.dropOutgoing(muc), ROWS_HOST);
    first = { ...check, end: second.at };
    await testBed.settle(juliet, muc);
  }, 120_000);

  it.each(ROWS.map((row): [string, string, (typeof ROWS)[number]] => [row.what, row.verdict, row]))(
    '%s means: %s',
    (_what, verdict, row) => {
      const isNotified = verdict !== 'joined';
      expect(reasons(juliet, roomOf(row))).toEqual(isNotified ? [row.reason ?? DEFAULT_REASON] : []);
      if (verdict === 'undecided')
        expect(pinged(first, roomOf(row))).toBeGreaterThan(1); // pinged again, and notified in the end
      else expect(pinged(first, roomOf(row))).toBe(1);
      expect(pinged(second, roomOf(row))).toBe(isNotified ? 0 : 1); // the join of a notified user has ended
    },
  );

  it.each(FALSE_ROWS.map((row): [string, { name: string }] => [row.what, row]))(
    '%s arrived in time, and was not accepted',
    (_what, row) => {
      expect(stray(row)[0]?.after).toBeLessThan(TIMEOUT * 1000);
    },
  );

  it('a result after the time-out was passed to the client', () => {
    const [late] = ROWS.filter(({ what }) => what === 'a result after the time-out').flatMap(stray);
    expect(late?.after).toBeGreaterThan(TIMEOUT * 1000);
  });

  it('item-not-found for ten occupants of a room causes one disco#info: all are notified, once', () => {
    expect(testBed.muc().count('disco', room(ROWS_HOST, FULL))).toBe(1);
    expect(nurses.map((user) => reasons(user, room(ROWS_HOST, FULL)))).toEqual(nurses.map(() => [DEFAULT_REASON]));
    expect(pinged(first, room(ROWS_HOST, FULL))).toBe(NURSES);
    expect(pinged(second, room(ROWS_HOST, FULL))).toBe(0);
  });

  it('only item-not-found causes disco#info, once in each round', () => {
    const unsure = ROWS.filter(({ what }) => what.startsWith('item-not-found'));
    const asked = new Set(
      testBed
        .muc()
        .asked.filter(({ kind }) => kind === 'disco')
        .map(({ to }) => to),
    );
    expect([...asked].sort()).toEqual([...unsure.map(roomOf), room(ROWS_HOST, FULL)].sort());
    for (const row of unsure) expect(testBed.muc().count('disco', roomOf(row))).toBe(pinged(first, roomOf(row)));
  });

  it('recipient-unavailable of the local server means: gone; the session is not pinged again', () => {
    expect(first.totals.gone).toBe(1);
    expect(testBed.muc().count('ping', room(ROWS_HOST, ENDED))).toBe(0);
    expect([pinged(first, room(ROWS_HOST, ENDED)), pinged(second, room(ROWS_HOST, ENDED))]).toEqual([1, 0]);
  });

  it('conflict of the local server means: stale; there is no notice, and the next check pings the newer join', () => {
    expect(first.totals.stale).toBe(2);
    const [replaced, givenUp] = [room(ROWS_HOST, REPLACED), room(ROWS_HOST, GIVEN_UP)];
    expect([...reasons(juliet, replaced), ...reasons(juliet, givenUp)]).toEqual([]);
    expect([first, second].map((check) => [pinged(check, replaced), pinged(check, givenUp)])).toEqual([
      [1, 1],
      [1, 0],
    ]);
    expect([testBed.muc().count('ping', replaced), testBed.muc().count('ping', givenUp)]).toEqual([1, 0]);
  });

  it('is counted in the totals', () => {
    const [joined, left, undecided] = [withVerdict('joined'), withVerdict('left') + NURSES, withVerdict('undecided')];
    expect(first.totals).toMatchObject({ joined, left, undecided, gone: 1, stale: 2, notified: left + undecided });
    expect(first.totals.pinged).toBeGreaterThanOrEqual(ROWS.length + NURSES + 3 + undecided);
    expect(second.totals).toEqual({
      pinged: joined + 1,
      joined: joined + 1,
      proved: 0,
      left: 0,
      undecided: 0,
      gone: 0,
      stale: 0,
      notified: 0,
      ...NO_REENTRY,
    });
  });
});

describe('undecided users without patience', () => {
  let impatient: Check;

  beforeAll(async () => {
    const muc = testBed.muc(IMPATIENT);
    await testBed.set({});
    await joinRooms(IMPATIENT, ['a-mute', 'busy', 'kept']);
    muc.script('ping', muc.room('a-mute'), silence); // pinged first, and alone
    muc.script('ping', muc.room('busy'), error('wait', 'resource-constraint'));
    impatient = await done(testBed.dropOutgoing(muc), IMPATIENT);
    await testBed.settle(juliet, muc);
  });

  it('are notified at once', () => {
    expect(impatient.totals).toEqual({
      pinged: 3,
      joined: 1,
      proved: 0,
      left: 0,
      undecided: 2,
      gone: 0,
      stale: 0,
      notified: 2,
      ...NO_REENTRY,
    });
    expect(['a-mute', 'busy', 'kept'].map((name) => reasons(juliet, room(IMPATIENT, name)))).toEqual([
      [DEFAULT_REASON],
      [DEFAULT_REASON],
      [],
    ]);
  });

  it('do not make the other rooms of the host undecided, even if they are pinged first', () => {
    expect(['busy', 'kept'].map((name) => pinged(impatient, room(IMPATIENT, name)))).toEqual([1, 1]);
  });
});

describe('undecided users with patience', () => {
  /** The checks of a host that becomes reachable again, of one that stays out of reach, and of silent rooms. */
  let back: Check;
  let out: Check;
  let silent: Check;
  let mended: number;

  async function hostComesBack(): Promise<Check> {
    const muc = testBed.muc(BACK);
    await joinRooms(BACK, ['kept', 'lost', 'restarted']);
    const at = Date.now();
    await linkOf(BACK)?.cut();
    await firstRound(at, BACK);
    muc.dropOccupant(muc.room('lost'), juliet.jid);
    for (const kind of ['ping', 'disco'] as const) muc.script(kind, muc.room('restarted'), noSuchItem);
    mended = Date.now();
    await linkOf(BACK)?.mend();
    return done(at, BACK);
  }

  async function hostStaysOut(): Promise<Check> {
    await joinRooms(OUT, ['one', 'two']);
    const at = Date.now();
    await linkOf(OUT)?.cut();
    return done(at, OUT);
  }

  async function roomsAreSilent(): Promise<Check> {
    const muc = testBed.muc(SILENT);
    for (const name of ['mute', 'then-joined', 'then-left']) muc.script('ping', muc.room(name), silence);
    await joinRooms(SILENT, ['loud', 'mute', 'then-joined', 'then-left']);
    const at = testBed.dropOutgoing(muc);
    await firstRound(at, SILENT);
    muc.script('ping', muc.room('then-joined'), result());
    muc.script('ping', muc.room('then-left'), error('cancel', 'not-acceptable', { text: 'Out' }));
    return done(at, SILENT);
  }

  beforeAll(async () => {
    await testBed.set({ ping_muc_patience: PATIENCE });
    [back, out, silent] = await Promise.all([hostComesBack(), hostStaysOut(), roomsAreSilent()]);
    await linkOf(OUT)?.mend();
    for (const service of [BACK, OUT, SILENT]) await testBed.settle(juliet, testBed.muc(service));
    await testBed.set({});
  });

  it('whose host is reachable again are pinged soon after, and notified only if they are lost', () => {
    expect(notifiedAt(room(BACK, 'kept'))).toBeUndefined();
    for (const name of ['lost', 'restarted']) {
      expect(reasons(juliet, room(BACK, name))).toEqual([DEFAULT_REASON]);
      expect(notifiedAt(room(BACK, name))).toBeGreaterThan(mended);
      expect(notifiedAt(room(BACK, name))).toBeLessThan(mended + 9000);
    }
    expect(back.totals).toEqual({
      pinged: 4,
      joined: 1,
      proved: 0,
      left: 2,
      undecided: 0,
      gone: 0,
      stale: 0,
      notified: 2,
      ...NO_REENTRY,
    }); // one ping counted for the whole host
  });

  it('whose host stays out of reach are notified when patience ends, and not before', () => {
    for (const name of ['one', 'two']) {
      expect(reasons(juliet, room(OUT, name))).toEqual([DEFAULT_REASON]);
      expect(notifiedAt(room(OUT, name))).toBeGreaterThan(out.at + (DELAY + PATIENCE) * 1000);
      expect(notifiedAt(room(OUT, name))).toBeLessThan(out.at + (DELAY + PATIENCE + 10) * 1000);
    }
    expect(out.totals).toMatchObject({ joined: 0, left: 0, undecided: 2, notified: 2 });
    expect(pinged(out, room(OUT, 'two'))).toBe(0); // the first one counted for the whole host in each round
    expect(out.totals.pinged).toBe(pinged(out, room(OUT, 'one')));
  });

  it('whose room is silent, on a host that answers, are pinged again; others are not', () => {
    const pings = ['loud', 'then-joined', 'then-left'].map((name) =>
      testBed.muc(SILENT).count('ping', room(SILENT, name)),
    );
    expect(pings).toEqual([1, 2, 2]);
    expect(testBed.muc(SILENT).count('ping', room(SILENT, 'mute'))).toBeGreaterThan(2);
  });

  it('whose room answers in time get its verdict; the others are notified when patience ends', () => {
    expect(['loud', 'then-joined', 'then-left', 'mute'].map((name) => reasons(juliet, room(SILENT, name)))).toEqual([
      [],
      [],
      ['Out'],
      [DEFAULT_REASON],
    ]);
    expect(notifiedAt(room(SILENT, 'then-left'))).toBeLessThan(notifiedAt(room(SILENT, 'mute')) ?? 0);
    expect(notifiedAt(room(SILENT, 'mute'))).toBeGreaterThan(silent.at + (DELAY + PATIENCE) * 1000);
    expect(silent.totals).toMatchObject({ joined: 2, left: 1, undecided: 1, notified: 2 });
  });
});

describe("the operator's settings", () => {
  it('ping_muc_dry_run: notices are only counted; without it, users are notified', async () => {
    const muc = testBed.muc(DRY);
    const [kept, lost, mute] = ['kept', 'lost', 'mute'].map((name) => muc.room(name)) as [string, string, string];
    const totals = {
      pinged: 3,
      joined: 1,
      proved: 0,
      left: 1,
      undecided: 1,
      gone: 0,
      stale: 0,
      notified: 2,
      ...NO_REENTRY,
    };
    await testBed.set({ ping_muc_dry_run: true });
    for (const room of [kept, lost, mute]) await testBed.join(juliet, room, 'Juliet');
    muc.dropOccupant(lost, juliet.jid);
    muc.script('ping', mute, error('cancel', 'remote-server-not-found'));
    const dry = testBed.dropOutgoing(muc);
    expect(await testBed.checkDone(dry, muc.domain)).toEqual(totals);
    await testBed.settle(juliet, muc);
    expect([kept, lost, mute].map((room) => reasons(juliet, room))).toEqual([[], [], []]);
    expect(testBed.history(lost)).toEqual(['joined Juliet']); // the server has not ended the join, either

    await testBed.set({});
    const wet = testBed.dropOutgoing(muc);
    expect(await testBed.checkDone(wet, muc.domain)).toEqual(totals);
    await testBed.settle(juliet, muc);
    expect([kept, lost, mute].map((room) => reasons(juliet, room).length)).toEqual([0, 1, 1]);
  });

  it('ping_muc_exclude: nothing is reported for its hosts, and their known joins end', async () => {
    const [muc, other] = [testBed.muc(EXCLUDED), testBed.muc(DRY)];
    await testBed.join(juliet, muc.room('before'), 'Juliet');
    await testBed.set({ ping_muc_exclude: muc.domain });
    await juliet.join(muc.room('excluded'), 'Juliet');
    await testBed.waitForHistory(muc.room('before'), ['joined Juliet', 'left']);
    const at = testBed.dropOutgoing(muc);
    testBed.dropOutgoing(other);
    await testBed.checkDone(at, other.domain);
    expect(testBed.history(muc.room('excluded'))).toEqual([]);
    expect(testBed.closes(at, muc)).toEqual([]);
    expect(testBed.closes(at, other)).toHaveLength(1);
  });
});
