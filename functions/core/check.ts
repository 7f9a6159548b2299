import { type CheckPorts, type CheckState, type StoredJoin, type Totals, readState } from './check-state.ts';
import { Backlog, allToTheirEnd, inParallel } from './concurrency.ts';
import { type Lost, MOST_TO_HOST, ReentryQueue, hasFailed, mayReenter, outcomeOf } from './reentry.ts';
import { type Answer, type Stanza, notice, ping, reentry, roomQuery, stanzaId } from './stanzas.ts';
import { MORE_TIMEOUTS, isNewerToDecide, isSuperseded, oldestOf } from './supersession.ts';
import { type PingVerdict, type Verdict, pingVerdict, roomVerdict, speakForHost } from './verdict.ts';

/**
 * One check: what follows one close, after the delay; or another cause to doubt that users are in a room.
 *
 * A check goes in rounds. The first asks about every join on the remote host; each later one, while there is patience,
 * asks about those that were left undecided. A round goes in invocations, each of which stops in good time and leaves a
 * cursor. An invocation streams the joins in batches, several of them in flight:
 *
 *   read joins ──▶ ping ──▶ (ask the room) ──▶ notify ┄┄▶ forget what has ended
 *                   └┄┄▶ re-enter ──▶ notify those who could not ┄┄▶ forget
 *
 * What is dotted goes on behind the rest: the next batch is pinged meanwhile. Re-entries go one request after the other
 * (rule 10), whichever batch they come from.
 *
 * Only an answer of the room puts anybody out, or its host's being out of reach for as long as patience lasts with no newer
 * close in between (rules 6 and 7 in docs/rules.md). Where a newer close is on record when silence is about to count, the
 * check leaves those it could not decide to that close, and ends.
 *
 * Whatever dies on the way is run again from the invocation's own input. That is safe: a join that was told, or replaced by
 * a re-entry, has ended on the server, which answers `conflict` to a second notice and a second re-entry.
 */

/** Requests with pings in flight. */
const REQUESTS_IN_FLIGHT = 4;
/**
 * Pings in one of them: with the re-entries they make the 1,000 stanzas that may be in flight to one remote host. Sending
 * one such batch takes the server some 20 ms.
 */
const BATCH = (1000 - MOST_TO_HOST) / REQUESTS_IN_FLIGHT;
/** Joins that may wait to re-enter before no more are pinged: the next invocation goes on. */
const MOST_TO_REENTER = 4000;
/** Table writes in flight for one batch, and batches that are written at a time. */
const WRITES_IN_FLIGHT = 16;
const BATCHES_WRITTEN = 4;
/** Batches that may wait to be written, as notices go first: with those that are pinged, and the first join, some 6,000 joins. */
const BATCHES_BEHIND = 20;
/** Rooms whose answer one invocation remembers. */
const MAX_ROOMS_REMEMBERED = 10_000;
/** Seconds before undecided joins are asked about again: doubling from the first to the last. */
const REASK_FIRST_SECONDS = 5;
const REASK_LAST_SECONDS = 60;
/**
 * What is kept for the end of an invocation, in milliseconds: the notices of the last batches, and the writes of all that
 * may be behind, 6,000 of them, and of 4,000 who could not re-enter in time: 100 a second will do.
 */
const CLOSING_MS = 120_000;

/** Takes up the check. Returns undefined where a newer one stands in for it. */
async function begin(state: CheckState, ports: CheckPorts): Promise<CheckState | undefined> {
  let oldest = state.at;
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const record = await ports.readClose(state);
    if (record === undefined) break; // expired, or deleted by hand: better checked twice than never
    if (isSuperseded(state, record)) return undefined;
    oldest = oldestOf(state, record);
    if (await ports.claimClose(state, record, oldest)) break;
  }
  return { ...state, oldest }; // or closes come faster than they can be read: the joins are all the same
}

/**
 * Runs one invocation of a check and returns the next state.
 * @throws whatever the ports throw, once what was in flight has come to its end
 */
export async function runCheck(input: CheckState, ports: CheckPorts): Promise<CheckState> {
  let state = readState(input);
  if (state.cursor === undefined) {
    state = startRound(state, ports.now());
    const begun = state.round === 0 ? await begin(state, ports) : state;
    if (begun === undefined) return { ...state, next: 'done', superseded: true };
    state = begun;
  }
  const page = new Page(state, ports);
  await page.run();
  return page.result();
}

function startRound(state: CheckState, now: number): CheckState {
  const deadline = state.deadline ?? now / 1000 + state.patience;
  return { ...state, deadline, final: now / 1000 >= deadline, open: 0 };
}

/** The part of a round that one invocation deals with. */
class Page {
  readonly #state: CheckState;
  readonly #ports: CheckPorts;
  readonly #totals: { -readonly [Key in keyof Totals]: number };
  /** What rooms answered, or are about to. */
  readonly #rooms = new Map<string, Promise<ReadonlyMap<string, Verdict>>>();
  /** What became of the joins, on its way into the table. */
  readonly #writes = new Backlog(BATCHES_WRITTEN, BATCHES_BEHIND);
  /** Who is to re-enter, and those that are just now doing so. */
  readonly #toReenter = new ReentryQueue();
  #reentering: Promise<void> | undefined;
  /** No re-entry has been asked for in this invocation. */
  #isFirstReentry = true;
  #open: number;
  /** The host is out of reach: nothing more is sent to it in this invocation. */
  #refused = false;
  /** Joins after this key are as if they had not been asked, as their host was out of reach; '' is before all keys. */
  #unaskedFrom: string | undefined;
  /** The newest close that the server's answers have told of, µs: its report may still be on its way. */
  #newest = 0;
  /** A newer close is to decide what this check has not: nothing more is asked. */
  #isPassedOn = false;
  /** That close is, or will be, on this check's own record. A room's check may leave something to a close of its host, too. */
  #isOnRecord = false;
  #failed = false;
  /** The key of the last join taken up. */
  #cursor: string | undefined;
  /** The round has come to its end. */
  #finished = false;

  constructor(state: CheckState, ports: CheckPorts) {
    this.#state = state;
    this.#ports = ports;
    this.#totals = { ...state.totals };
    this.#open = state.open;
    this.#cursor = state.cursor;
  }

  async run(): Promise<void> {
    const batches = this.#batches();
    const first = await batches.next();
    if (first.done) return;
    await this.#settle(first.value); // one join: its ping speaks for its host
    const worker = async (): Promise<void> => {
      for (let batch = await batches.next(); !batch.done; batch = await batches.next()) await this.#settle(batch.value);
    };
    const stop = (error: unknown): never => {
      this.#failed = true;
      throw error;
    };
    const workers = Array.from({ length: REQUESTS_IN_FLIGHT }, () => worker().catch(stop));
    const rest = Promise.allSettled(workers).then(async () => {
      await batches.return();
      await Promise.allSettled([this.#reentering]);
      await this.#writes.end();
    });
    await allToTheirEnd([...workers, rest]);
    await this.#reentering;
    if (this.#isOnRecord) await this.#ports.passOn(this.#state, this.#state.oldest ?? this.#state.at);
  }

  result(): CheckState {
    const { cursor: _cursor, unaskedAfter, ...rest } = this.#state;
    const state = { ...rest, totals: this.#totals, open: this.#open };
    const keep = (key: string | undefined): { unaskedAfter?: string } =>
      key === undefined ? {} : { unaskedAfter: key };
    if (this.#isPassedOn) return { ...state, open: 0, next: 'done', superseded: true };
    if (this.#finished && !this.#isHopeless()) {
      if (this.#open === 0) return { ...state, next: 'done' };
      return { ...state, next: 'wait', wait: this.#reaskSeconds(), round: state.round + 1 };
    }
    if (!this.#isHopeless())
      return {
        ...state,
        ...keep(unaskedAfter),
        ...(this.#cursor === undefined ? {} : { cursor: this.#cursor }),
        next: 'page',
      };
    const from = this.#unaskedFrom ?? this.#cursor ?? '';
    const unasked = state.round === 0 ? from : unaskedAfter === undefined ? undefined : later(unaskedAfter, from);
    return { ...state, ...keep(unasked), next: 'wait', wait: this.#reaskSeconds(), round: state.round + 1 };
  }

  /** Nothing more can be learned in this round. In the last round, users are told all the same. */
  #isHopeless(): boolean {
    return this.#refused && this.#state.final !== true;
  }

  #reaskSeconds(): number {
    const backoff = Math.min(REASK_LAST_SECONDS, REASK_FIRST_SECONDS * 2 ** Math.min(this.#state.round, 10));
    const left = (this.#state.deadline ?? 0) - this.#ports.now() / 1000;
    return Math.max(1, Math.ceil(left > 0 ? Math.min(backoff, left) : backoff));
  }

  /** Nothing is put off any more. */
  #isOver(): boolean {
    const { deadline = 0, timeout } = this.#state;
    return this.#ports.now() / 1000 >= deadline + MORE_TIMEOUTS * timeout;
  }

  /** Whether a newer close is to decide what this check can't. Looked up each time, as it may have come this moment. */
  async #passOn(): Promise<boolean> {
    if (this.#isPassedOn) return true;
    const record = await this.#ports.readClose(this.#state);
    const isOfRoom = this.#state.room !== undefined;
    this.#isOnRecord = isNewerToDecide(this.#state, Math.max(isOfRoom ? 0 : this.#newest, record?.at ?? 0));
    this.#isPassedOn = this.#isOnRecord || (isOfRoom && isNewerToDecide(this.#state, this.#newest));
    return this.#isPassedOn;
  }

  /** The joins of this round, first one alone, then in batches, for as long as there is time. */
  async *#batches(): AsyncGenerator<Batch, void> {
    const mayTakeMs = 2 * this.#state.timeout * 1000 + CLOSING_MS; // a ping, a question to its room, and the rest
    let taken = 0;
    let batch: StoredJoin[] = [];
    const mayTake = (): boolean =>
      taken === 0 ||
      (!this.#failed &&
        !this.#isPassedOn &&
        !this.#isHopeless() &&
        this.#toReenter.size < MOST_TO_REENTER &&
        this.#ports.remaining() > mayTakeMs);
    const take = (): Batch => {
      const ready = { joins: batch, after: this.#cursor ?? '' };
      batch = [];
      taken += 1;
      this.#cursor = ready.joins.at(-1)?.key;
      return ready;
    };
    const pages = this.#ports.readJoins(this.#state, this.#state.cursor)[Symbol.asyncIterator]();
    let page = pages.next();
    try {
      for (let joins = await page; !joins.done; joins = await page) {
        let isAhead = false;
        for (const join of joins.value) {
          if (!this.#isDue(join)) continue;
          batch.push(join);
          if (batch.length < (taken === 0 ? 1 : BATCH)) continue;
          if (!mayTake()) return;
          yield take();
          if (isAhead || !mayTake()) continue;
          page = pages.next(); // read while this one is pinged
          page.catch(() => undefined); // whoever awaits it has the error
          isAhead = true;
        }
        if (!isAhead) page = pages.next();
      }
    } finally {
      await page.catch(() => undefined);
    }
    if (batch.length > 0) {
      if (!mayTake()) return;
      yield take();
    }
    this.#finished = true;
  }

  #isDue(join: StoredJoin): boolean {
    const { round, at, unaskedAfter } = this.#state;
    return (
      round === 0 ||
      join.undecidedBy === at ||
      (unaskedAfter !== undefined && later(join.key, unaskedAfter) !== unaskedAfter)
    );
  }

  /** Takes a batch from ping to notice, and hands in what is to be written of it. */
  async #settle({ joins: batch, after }: Batch): Promise<void> {
    const { host, final } = this.#state;
    const answers = await this.#ping(batch);
    if (answers === undefined) {
      this.#unaskedFrom = this.#unaskedFrom === undefined ? after : earlier(this.#unaskedFrom, after);
      return;
    }
    const verdicts = new Map(
      batch.map((join): [StoredJoin, PingVerdict] => [join, pingVerdict(answers.get(stanzaId(join)), host)]),
    );
    this.#reenter(
      takeOut(verdicts, (verdict) => mayReenter(this.#state, verdict)).map((join) => lost(join, answers, host)),
    );
    await this.#askRooms(verdicts);
    const isOver = this.#isOver();
    for (const [join, verdict] of verdicts) if (verdict === 'inconclusive' && isOver) verdicts.set(join, 'undecided');
    const isOpen = (join: StoredJoin): boolean => ['undecided', 'inconclusive'].includes(verdicts.get(join) ?? '');
    const rest = [...verdicts.keys()];
    const isPassedOn = this.#isPassedOn || (final === true && rest.some(isOpen) && (await this.#passOn()));
    const ours = isPassedOn ? rest.filter((join) => !isOpen(join)) : rest;
    const isOut = (verdict: PingVerdict | undefined): boolean =>
      verdict === 'left' || verdict === 'no-room' || (final === true && verdict === 'undecided');
    const told = await this.#tell(
      ours.filter((join) => isOut(verdicts.get(join))).map((join) => lost(join, answers, host)),
    );
    await this.#write(
      ours.map(
        (join) => () => this.#record(join, verdicts.get(join) as Verdict, told.get(join), answers.get(stanzaId(join))),
      ),
    );
  }

  /** Hands in what is to be written. */
  async #write(records: readonly (() => Promise<void>)[]): Promise<void> {
    await this.#writes.add(() => inParallel(records, WRITES_IN_FLIGHT));
  }

  /** Returns undefined where the host is out of reach, and there is patience: as if nobody had been asked, no row is written. */
  async #ping(batch: readonly StoredJoin[]): Promise<ReadonlyMap<string, Answer> | undefined> {
    const { at, host, timeout } = this.#state;
    if (this.#refused) return this.#isHopeless() ? undefined : new Map();
    const answers = await this.#send(
      batch.map((join) => ping(join, at)),
      timeout,
    );
    this.#totals.pinged += batch.length;
    const isOutOfReach = speakForHost(
      batch.map((join) => answers.get(stanzaId(join))),
      host,
    );
    if (isOutOfReach && !(await this.#passOn())) this.#refused = true;
    return isOutOfReach && this.#isHopeless() ? undefined : answers;
  }

  /** Sends stanzas, and remembers what the answers say of newer closes. */
  async #send(stanzas: readonly Stanza[], timeout: number): Promise<ReadonlyMap<string, Answer>> {
    const answers = await this.#ports.send(this.#state.host, stanzas, timeout);
    for (const answer of answers.values()) {
      if (answer.kind === 'error' && answer.by === this.#state.host)
        this.#newest = Math.max(this.#newest, answer.closed ?? 0);
    }
    return answers;
  }

  /** Replaces each `ask-room` by what the room says; a room is asked once. */
  async #askRooms(verdicts: Map<StoredJoin, PingVerdict>): Promise<void> {
    const unsure = [...verdicts.keys()].filter((join) => verdicts.get(join) === 'ask-room');
    const open = Map.groupBy(unsure, (join) => join.room);
    while (open.size > 0) {
      const unknown = new Map([...open].filter(([room]) => !this.#rooms.has(room)));
      if (unknown.size > 0) {
        if (this.#rooms.size > MAX_ROOMS_REMEMBERED) this.#rooms.clear();
        const asked = this.#askEach(unknown);
        for (const room of unknown.keys()) this.#rooms.set(room, asked);
      }
      const rooms = [...open];
      const answers = await Promise.all(rooms.map(async ([room]) => (await this.#rooms.get(room))?.get(room)));
      rooms.forEach(([room, occupants], index) => {
        const verdict = answers[index];
        if (verdict === undefined && !unknown.has(room)) return; // forgotten, or those who were to ask have gone: ours may
        for (const join of occupants) verdicts.set(join, verdict ?? 'undecided');
        open.delete(room);
      });
    }
  }

  /** Asks each room through its occupants, one after the other, until one of them still has a session to ask with. */
  async #askEach(rooms: ReadonlyMap<string, readonly StoredJoin[]>): Promise<ReadonlyMap<string, Verdict>> {
    const { host, timeout } = this.#state;
    const verdicts = new Map<string, Verdict>();
    for (let turn = 0; ; turn += 1) {
      const asking = [...rooms]
        .filter(([room]) => !verdicts.has(room))
        .flatMap(([, occupants]) => occupants.slice(turn, turn + 1));
      if (asking.length === 0) break;
      const answers = await this.#send(asking.map(roomQuery), timeout);
      for (const join of asking) {
        const verdict = roomVerdict(answers.get(stanzaId(join)), host);
        if (verdict !== 'gone' && verdict !== 'stale') verdicts.set(join.room, verdict);
      }
    }
    for (const room of rooms.keys()) if (!verdicts.has(room)) this.#rooms.delete(room); // a later batch may ask
    return verdicts;
  }

  /** Has them re-enter their rooms, behind all else that is done. */
  #reenter(those: readonly Lost[]): void {
    this.#toReenter.add(those);
    if (this.#toReenter.size === 0 || this.#reentering !== undefined) return;
    this.#reentering = this.#reenterAll();
    this.#reentering.catch(() => undefined); // run() has the error
  }

  /** Goes on for as long as somebody waits; those for whom there is no time, or no link, are left to the next round. */
  async #reenterAll(): Promise<void> {
    let records: (() => Promise<void>)[] = [];
    try {
      while (this.#toReenter.size > 0 && !this.#failed) {
        if (this.#mayReenter()) records.push(...(await this.#reenterNext()));
        else
          records.push(
            ...this.#toReenter.takeAll().map(
              ({ join }) =>
                () =>
                  this.#record(join, 'left', 'put off'),
            ),
          );
        if (records.length < BATCH && this.#toReenter.size > 0) continue;
        await this.#write(records);
        records = [];
      }
      this.#reentering = undefined; // in the same turn: whoever comes next begins anew
    } catch (error) {
      this.#failed = true;
      throw error;
    }
  }

  /** Whether there is a link, and time for a re-entry that is not answered, and for all that is to be done after it. */
  #mayReenter(): boolean {
    if (this.#toReenter.isLinkDown) return false;
    return this.#isFirstReentry || this.#ports.remaining() > this.#state.timeout * 1000 + CLOSING_MS;
  }

  /** Takes a request from re-entry to notice. Returns what is to be written of it. */
  async #reenterNext(): Promise<(() => Promise<void>)[]> {
    const request = this.#toReenter.next();
    const sentAt = this.#ports.now();
    const answers = await this.#enter(request);
    const tookMs = this.#ports.now() - sentAt;
    const isOver = this.#isOver();
    const outcomes = request.map(({ join }) => {
      const outcome = outcomeOf(answers.get(stanzaId(join)), this.#state.host);
      return outcome === 'broken' && isOver ? 'unanswered' : outcome;
    });
    this.#toReenter.learn(request, outcomes, tookMs);
    const fates = new Map<StoredJoin, Fate>();
    const toTell: Lost[] = [];
    for (const [index, outcome] of outcomes.entries()) {
      const { join, reason } = request[index] as Lost;
      const own = outcome === 'refused' ? roomsOwnText(answers.get(stanzaId(join)), this.#state.host) : undefined;
      if (hasFailed(outcome)) toTell.push({ join, reason: own ?? reason });
      else fates.set(join, outcome === 'broken' ? 'put off' : outcome);
    }
    toTell.push(...this.#toReenter.takeHopeless());
    for (let from = 0; from < toTell.length; from += BATCH) {
      for (const [join, fate] of await this.#tell(toTell.slice(from, from + BATCH))) {
        fates.set(join, fate);
        if (fate === 'told') this.#totals.refused += 1;
      }
    }
    return Array.from(
      fates,
      ([join, fate]) =>
        () =>
          this.#record(join, 'left', fate, answers.get(stanzaId(join))),
    );
  }

  /** Asks the server to enter rooms again; in a dry run, says that it has. */
  async #enter(request: readonly Lost[]): Promise<ReadonlyMap<string, Answer>> {
    if (request.length === 0) return new Map();
    this.#isFirstReentry = false;
    if (this.#state.dryRun) return new Map(request.map(({ join }) => [stanzaId(join), { kind: 'result' }]));
    return this.#send(
      request.map(({ join }) => reentry(join)),
      this.#state.timeout,
    );
  }

  /** Sends the notices. Returns what has become of each join: told is its own verdict confirmed. */
  async #tell(those: readonly Lost[]): Promise<ReadonlyMap<StoredJoin, Fate>> {
    const { timeout, dryRun } = this.#state;
    if (dryRun || those.length === 0) return new Map(those.map(({ join }) => [join, 'told']));
    const answers = await this.#send(
      those.map(({ join, reason }) => notice(join, reason)),
      timeout,
    );
    return new Map(
      those.map(({ join }) => {
        const answer = answers.get(stanzaId(join));
        if (answer?.kind !== 'error') return [join, 'told'];
        if (answer.condition === 'recipient-unavailable') return [join, 'gone'];
        return [join, answer.isRejoining ? 'rejoining' : 'stale'];
      }),
    );
  }

  /**
   * Counts, and writes, what has become of a join.
   * @param fate what a notice or a re-entry has come to, where there was one
   * @param answer to the ping, or to the re-entry
   */
  async #record(join: StoredJoin, verdict: Verdict, fate?: Fate, answer?: Answer): Promise<void> {
    const { at, dryRun } = this.#state;
    const isOpen = fate === undefined && ['undecided', 'inconclusive'].includes(verdict);
    if (isOpen || fate === 'put off' || (fate === 'rejoining' && !this.#isOver())) {
      this.#open += 1;
      if (join.undecidedBy !== at) await this.#ports.markUndecided(join, at);
      return;
    }
    this.#totals[settledAs(verdict, fate)] += 1;
    if (fate === 'told') this.#totals.notified += 1;
    if (fate === 'back') this.#totals.reentered += 1;
    if (answer?.kind === 'result' && answer.hasGap) this.#totals.gaps += 1;
    if (verdict === 'joined' && answer?.kind === 'result' && answer.isProof) this.#totals.proved += 1;
    // who is just now joining again has a row that the room's answer replaces; without an answer, the next check needs it
    const stays = verdict === 'joined' || fate === 'rejoining' || (dryRun && (fate === 'told' || fate === 'back'));
    if (!stays) await this.#ports.forget(join);
    else if (join.undecidedBy !== undefined) await this.#ports.markDecided(join, at);
  }
}

/** Joins that are taken up together, and the key of the join before them; '' is before all keys. */
interface Batch {
  readonly joins: readonly StoredJoin[];
  readonly after: string;
}

/** What a notice or a re-entry came to. `put off`: there was no time for it, or the link was down. */
type Fate = 'told' | 'back' | 'gone' | 'stale' | 'rejoining' | 'put off';

/** As what a join is counted that is not asked about again. */
function settledAs(verdict: Verdict, fate: Fate | undefined): 'joined' | 'left' | 'undecided' | 'gone' | 'stale' {
  if (fate === 'gone' || fate === 'stale') return fate;
  if (fate === 'rejoining') return 'stale';
  return verdict === 'no-room' ? 'left' : (verdict as Exclude<Verdict, 'no-room' | 'inconclusive'>);
}

/** Takes out the joins with such a verdict. */
function takeOut(
  verdicts: Map<StoredJoin, PingVerdict>,
  isTaken: (verdict: PingVerdict) => boolean,
): readonly StoredJoin[] {
  const taken = [...verdicts].filter(([, verdict]) => isTaken(verdict)).map(([join]) => join);
  for (const join of taken) verdicts.delete(join);
  return taken;
}

function lost(join: StoredJoin, answers: ReadonlyMap<string, Answer>, host: string): Lost {
  return { join, reason: roomsOwnText(answers.get(stanzaId(join)), host) };
}

function roomsOwnText(answer: Answer | undefined, host: string): string | undefined {
  return answer?.kind === 'error' && answer.by !== host ? answer.text : undefined;
}

/** The later, and the earlier, of two keys in the table's own order, that of their bytes. */
function later(one: string, other: string): string {
  return Buffer.compare(Buffer.from(one), Buffer.from(other)) > 0 ? one : other;
}
function earlier(one: string, other: string): string {
  return later(one, other) === one ? other : one;
}
