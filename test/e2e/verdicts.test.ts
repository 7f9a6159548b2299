import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Totals } from '../../functions/core/check-state.ts';
import { DEFAULT_REASON } from '../../functions/core/stanzas.ts';
import { sleep, until } from '../../lab/lab.ts';
import { type Reaction, as, error, held, rawError, result, silence, through } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import type { User } from '../../lab/user.ts';
import type { LinkControls } from '../../lab/threaded-link.ts';

/** Without `ping_muc_reenter`, nobody is brought back. */
const NO_REENTRY = { reentered: 0, gaps: 0, refused: 0 };

/**
 * Rules 6 to 9 (docs/rules.md): each row of rule 6 through real servers and the whole workflow, what becomes of the undecided, and what
 * the operator wishes. One check asks about all rows; the tests look at what came of each.
 */
const DELAY = 1;
const TIMEOUT = 3;
const PATIENCE = 10;
/** The chat services, each for what happens to its host. */
const [ROWS_HOST, BACK, OUT, SILENT, IMPATIENT, DRY, EXCLUDED, FALSE] = [0, 1, 2, 3, 4, 5, 6, 7];
const NURSES = 10;
const [FULL, ENDED, REPLACED, GIVEN_UP] = ['row-crowded', 'row-ended', 'row-replaced', 'row-given-up'];
let testBed: ScriptedRooms;
let juliet: User;
const nurses: User[] = [];

interface Check {
  readonly at: number;
  readonly totals: Totals;
}
/** Without patience. */
let impatient: Check;
/** With patience: of the rows, and of hosts that come back, stay out of reach, and are silent. */
let first: Check;
let back: Check;
let out: Check;
let silent: Check;
let mended: number;
/** The next check of the rows, which all rooms answer. */
let second: Check;

const room = (service: number, name: string): string => testBed.muc(service).room(name);
/** How often the functions asked for a ping in a check. */
const pinged = (check: Check, to: string): number => {
  const end = check === first ? second.at : Infinity;
  return testBed.pinged(check.at, end).filter((asked) => asked === to || asked.startsWith(`${to}/`)).length;
};
const notices = (user: User, from: string): ReturnType<User['notices']> =>
  user.notices().filter(({ stanza }) => String(stanza.attrs['from']).startsWith(`${from}/`));
const reasons = (user: User, from: string): readonly (string | null)[] =>
  notices(user, from).map(
    ({ stanza }) =>
      stanza.getChild('x', 'http://jabber.org/protocol/muc#user')?.getChild('item')?.getChildText('reason') ?? null,
  );
const notifiedAt = (from: string): number | undefined => notices(juliet, from)[0]?.at;
const done = async (at: number, service: number): Promise<Check> => ({
  at,
  totals: await testBed.checkDone(at, testBed.muc(service).domain),
});

beforeAll(async () => {
  testBed = await ScriptedRooms.open({ ping_muc_delay: DELAY, ping_muc_timeout: TIMEOUT }, 8);
  juliet = await testBed.user('juliet');
  nurses.push(...(await Promise.all(Array.from({ length: NURSES }, (_, n) => testBed.user('nurse', `session-${n}`)))));
  impatient = await withoutPatience();
  await testBed.set({ ping_muc_patience: PATIENCE });
  await withPatience();
}, 120_000);
afterAll(() => testBed.close());

async function withoutPatience(): Promise<Check> {
  await Promise.all(['a-mute', 'busy', 'kept'].map((name) => testBed.join(juliet, room(IMPATIENT, name), 'Juliet')));
  testBed.muc(IMPATIENT).script('ping', room(IMPATIENT, 'a-mute'), silence); // asked first, and alone
  testBed.muc(IMPATIENT).script('ping', room(IMPATIENT, 'busy'), error('wait', 'resource-constraint'));
  return done(testBed.dropOutgoing(testBed.muc(IMPATIENT)), IMPATIENT);
}

async function withPatience(): Promise<void> {
  const muc = testBed.muc(ROWS_HOST);
  const romeo = await testBed.user('romeo');
  for (const row of ROWS) {
    muc.script('ping', roomOf(row), row.ping);
    muc.script('disco', roomOf(row), row.disco);
  }
  for (const kind of ['ping', 'disco'] as const) muc.script(kind, muc.room(FULL), noSuchItem);
  for (const name of ['mute', 'then-joined', 'then-left'])
    testBed.muc(SILENT).script('ping', room(SILENT, name), silence);
  await Promise.all([
    ...[...ROWS.map(roomOf), muc.room(REPLACED), muc.room(GIVEN_UP), room(FALSE, 'warm')].map((to) =>
      testBed.join(juliet, to, 'Juliet'),
    ),
    ...nurses.map((user, n) => testBed.join(user, muc.room(FULL), `nurse ${n}`)),
    testBed.join(romeo, muc.room(ENDED), 'Romeo'),
    ...['kept', 'lost', 'restarted'].map((name) => testBed.join(juliet, room(BACK, name), 'Juliet')),
    ...['one', 'two'].map((name) => testBed.join(juliet, room(OUT, name), 'Juliet')),
    ...['loud', 'mute', 'then-joined', 'then-left'].map((name) => testBed.join(juliet, room(SILENT, name), 'Juliet')),
  ]);

  const linkOf = (service: number): LinkControls | undefined => testBed.away.links.get(testBed.muc(service).domain);
  const begun = Promise.withResolvers<undefined>();
  const meanwhile = Promise.withResolvers<undefined>();
  testBed.stanzas.interceptor.before = (body) => {
    if (!body.includes(muc.domain)) return undefined;
    begun.resolve(undefined);
    return meanwhile.promise;
  };
  const at = testBed.dropOutgoing(muc);
  for (const service of [BACK, OUT]) await linkOf(service)?.cut();
  linkOf(SILENT)?.drop();
  const firstRound = (service: number): Promise<unknown> =>
    until(
      'the first round is over',
      () =>
        ['check will ask again', 'check done'].flatMap((message) =>
          testBed.lines(message, at, testBed.muc(service)),
        )[0],
      20_000,
    );
  const checks = Promise.all([ROWS_HOST, BACK, OUT, SILENT].map((service) => done(at, service)));
  const changes = [
    async () => {
      await begun.promise; // the check has read its joins, and asked none: what ends now it does not know
      await romeo.leaveServer();
      await testBed.join(juliet, muc.room(REPLACED), 'Juliet');
      await juliet.leave(muc.room(GIVEN_UP), 'Juliet');
      await testBed.waitForHistory(muc.room(GIVEN_UP), ['joined Juliet', 'left']);
      meanwhile.resolve(undefined);
    },
    async () => {
      await firstRound(BACK);
      testBed.muc(BACK).dropOccupant(room(BACK, 'lost'), juliet.jid);
      for (const kind of ['ping', 'disco'] as const)
        testBed.muc(BACK).script(kind, room(BACK, 'restarted'), noSuchItem);
      mended = Date.now();
      await linkOf(BACK)?.mend();
    },
    async () => {
      await firstRound(SILENT);
      testBed.muc(SILENT).script('ping', room(SILENT, 'then-joined'), result());
      testBed.muc(SILENT).script('ping', room(SILENT, 'then-left'), error('cancel', 'not-acceptable', { text: 'Out' }));
    },
  ];
  await Promise.all(changes.map((change) => change()));
  [first, back, out, silent] = (await checks) as [Check, Check, Check, Check];

  tooLate.resolve(undefined);
  await testBed.settle(juliet, muc);
  for (const row of ROWS) muc.script('ping', roomOf(row), result());
  second = await done(testBed.dropOutgoing(muc), ROWS_HOST);
  for (const service of [ROWS_HOST, SILENT, OUT, BACK]) {
    await linkOf(service)?.mend();
    await testBed.settle(juliet, testBed.muc(service));
  }
}

/** Answers to a row's pings that nobody had waited for, and that went on to the client. */
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
  /** What the user is told, where it is told: without one, the default. */
  readonly reason?: string;
}

const noSuchItem = error('cancel', 'item-not-found');
const forged =
  (condition: string, more = ''): Reaction =>
  (question) =>
    error('cancel', condition, { by: testBed.home.host, more })(question);
const tooLate = Promise.withResolvers<unknown>();

/** Gives each row a room of its own, in their order. */
function named(rows: readonly Row[]): readonly (Row & { readonly name: string })[] {
  return rows.map((row, index) => ({ ...row, name: `row-${String(index).padStart(2, '0')}` }));
}

/** The first one's ping goes alone, and must not speak for its host. */
const ROWS = named([
  { what: 'a result', ping: result(), verdict: 'joined' },
  {
    what: 'a result with an odd payload',
    ping: result('<query xmlns="jabber:iq:version"><name>&lt;odd&gt;</name></query><error type="cancel"/>'),
    verdict: 'joined',
  },
  { what: 'a result that is late, but in time', ping: held(() => sleep(1000), result()), verdict: 'joined' },
  { what: 'service-unavailable', ping: error('cancel', 'service-unavailable'), verdict: 'joined' },
  { what: 'feature-not-implemented', ping: error('cancel', 'feature-not-implemented'), verdict: 'joined' },
  { what: 'item-not-found, and the room is there', ping: noSuchItem, verdict: 'joined' },
  {
    what: 'item-not-found, and the room is there, but does not say what it is',
    ping: noSuchItem,
    disco: error('auth', 'forbidden'),
    verdict: 'joined',
  },
  {
    what: 'item-not-found, and there is no such room',
    ping: error('cancel', 'item-not-found', { text: 'No such room' }),
    disco: noSuchItem,
    verdict: 'left',
    reason: 'No such room',
  },
  { what: 'item-not-found, and the room is silent', ping: noSuchItem, disco: silence, verdict: 'undecided' },
  {
    what: 'item-not-found, and the room asks to wait',
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
    what: 'an error of type wait with a condition that would be a loss',
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
    what: 'not-acceptable with a text of the room',
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
  { what: 'an error that no RFC knows', ping: error('cancel', 'gone-fishing'), verdict: 'left' },
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
      '<error type="cancel"><not-acceptable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">You<b>!</b></text></error>',
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
/** Those whose answer is there in time, but not from whom it should be. */
const FALSE_ROWS = ROWS.filter(({ what }) => what.startsWith('a result from') || what.endsWith('from another host'));
const withVerdict = (verdict: Row['verdict']): number => ROWS.filter((row) => row.verdict === verdict).length;

describe('the answer to a ping', () => {
  it.each(ROWS.map((row): [string, string, (typeof ROWS)[number]] => [row.what, row.verdict, row]))(
    '%s means: %s',
    (_what, verdict, row) => {
      const isNotified = verdict !== 'joined';
      expect(reasons(juliet, roomOf(row))).toEqual(isNotified ? [row.reason ?? DEFAULT_REASON] : []);
      if (verdict === 'undecided')
        expect(pinged(first, roomOf(row))).toBeGreaterThan(1); // it is asked again, and told at the end
      else expect(pinged(first, roomOf(row))).toBe(1);
      expect(pinged(second, roomOf(row))).toBe(isNotified ? 0 : 1); // who was told is forgotten
    },
  );

  it.each(FALSE_ROWS.map((row): [string, { name: string }] => [row.what, row]))(
    '%s came in time, and was not taken',
    (_what, row) => {
      expect(stray(row)[0]?.after).toBeLessThan(TIMEOUT * 1000);
    },
  );

  it('a result after the time-out came at last, and went to the client', () => {
    const [late] = ROWS.filter(({ what }) => what === 'a result after the time-out').flatMap(stray);
    expect(late?.after).toBeGreaterThan(TIMEOUT * 1000);
  });

  it('item-not-found with ten occupants in a room is settled by one disco#info: all are told, once', () => {
    expect(testBed.muc().count('disco', room(ROWS_HOST, FULL))).toBe(1);
    expect(nurses.map((user) => reasons(user, room(ROWS_HOST, FULL)))).toEqual(nurses.map(() => [DEFAULT_REASON]));
    expect(pinged(first, room(ROWS_HOST, FULL))).toBe(NURSES);
    expect(pinged(second, room(ROWS_HOST, FULL))).toBe(0);
  });

  it('item-not-found alone has the room asked, once a round', () => {
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

  it('recipient-unavailable of our own server means: gone; the session is not asked about again', () => {
    expect(first.totals.gone).toBe(1);
    expect(testBed.muc().count('ping', room(ROWS_HOST, ENDED))).toBe(0);
    expect([pinged(first, room(ROWS_HOST, ENDED)), pinged(second, room(ROWS_HOST, ENDED))]).toEqual([1, 0]);
  });

  it('conflict of our own server means: stale; nobody is told, and the next check asks about the newer join, if there is one', () => {
    expect(first.totals.stale).toBe(2);
    const [replaced, givenUp] = [room(ROWS_HOST, REPLACED), room(ROWS_HOST, GIVEN_UP)];
    expect([...reasons(juliet, replaced), ...reasons(juliet, givenUp)]).toEqual([]);
    expect([first, second].map((check) => [pinged(check, replaced), pinged(check, givenUp)])).toEqual([
      [1, 1],
      [1, 0],
    ]);
    expect([testBed.muc().count('ping', replaced), testBed.muc().count('ping', givenUp)]).toEqual([1, 0]);
  });

  it('is counted', () => {
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

describe('the undecided', () => {
  it('without patience are told at once', () => {
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

  it('whose room alone is silent do not speak for their host, be they the first that are asked', () => {
    expect(['busy', 'kept'].map((name) => pinged(impatient, room(IMPATIENT, name)))).toEqual([1, 1]);
  });

  it('whose host comes back are asked again soon after, and told only if they are lost', () => {
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
    }); // one ping spoke for the host
  });

  it('whose host stays out of reach are told when patience is over, and not before', () => {
    for (const name of ['one', 'two']) {
      expect(reasons(juliet, room(OUT, name))).toEqual([DEFAULT_REASON]);
      expect(notifiedAt(room(OUT, name))).toBeGreaterThan(out.at + (DELAY + PATIENCE) * 1000);
      expect(notifiedAt(room(OUT, name))).toBeLessThan(out.at + (DELAY + PATIENCE + 10) * 1000);
    }
    expect(out.totals).toMatchObject({ joined: 0, left: 0, undecided: 2, notified: 2 });
    expect(pinged(out, room(OUT, 'two'))).toBe(0); // the first one spoke for the host in each round
    expect(out.totals.pinged).toBe(pinged(out, room(OUT, 'one')));
  });

  it('whose room is silent on a host that answers are asked again; the others are not', () => {
    const pings = ['loud', 'then-joined', 'then-left'].map((name) =>
      testBed.muc(SILENT).count('ping', room(SILENT, name)),
    );
    expect(pings).toEqual([1, 2, 2]);
    expect(testBed.muc(SILENT).count('ping', room(SILENT, 'mute'))).toBeGreaterThan(2);
  });

  it('whose room answers at last are what it says; those whose room does not are told when patience is over', () => {
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

describe('as the operator wishes', () => {
  it('ping_muc_dry_run: everything but the notice, which is counted; once it is over, users are told', async () => {
    const muc = testBed.muc(DRY);
    const [kept, lost, mute] = ['kept', 'lost', 'mute'].map((name) => muc.room(name)) as [string, string, string];
    await testBed.set({ ping_muc_dry_run: true });
    for (const room of [kept, lost, mute]) await testBed.join(juliet, room, 'Juliet');
    muc.dropOccupant(lost, juliet.jid);
    muc.script('ping', mute, error('cancel', 'remote-server-not-found'));
    const dry = testBed.dropOutgoing(muc);
    expect(await testBed.checkDone(dry, muc.domain)).toEqual({
      pinged: 3,
      joined: 1,
      proved: 0,
      left: 1,
      undecided: 1,
      gone: 0,
      stale: 0,
      notified: 2,
      ...NO_REENTRY,
    });
    await testBed.settle(juliet, muc);
    expect([kept, lost, mute].map((room) => reasons(juliet, room))).toEqual([[], [], []]);
    expect(testBed.history(lost)).toEqual(['joined Juliet']); // neither has the server ended the join

    await testBed.set({});
    const wet = testBed.dropOutgoing(muc);
    expect(await testBed.checkDone(wet, muc.domain)).toEqual({
      pinged: 3,
      joined: 1,
      proved: 0,
      left: 1,
      undecided: 1,
      gone: 0,
      stale: 0,
      notified: 2,
      ...NO_REENTRY,
    });
    await testBed.settle(juliet, muc);
    expect([kept, lost, mute].map((room) => reasons(juliet, room).length)).toEqual([0, 1, 1]);
  });

  it('ping_muc_exclude: of a host in it nothing is reported, and what was reported ends', async () => {
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
