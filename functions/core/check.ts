import type { Close, Join } from './events.ts';
import { type Answer, type Stanza, notice, ping, roomQuery, stanzaId } from './stanzas.ts';
import { type PingVerdict, type Verdict, pingVerdict, roomVerdict, speaksForHost } from './verdict.ts';

/**
 * One check: what follows one close, after the delay.
 *
 * A check goes in rounds. The first asks about every join on the remote host; each later one, while there is patience,
 * asks about those that were left undecided. A round goes in invocations, each of which stops in good time and leaves a
 * cursor. An invocation streams the joins in batches, several of them in flight:
 *
 *   read joins ──▶ ping ──▶ (ask the room) ──▶ notify ┄┄▶ forget what has ended
 *
 * The last step goes on behind the others: the next batch is pinged meanwhile.
 *
 * Whatever dies on the way is run again from the invocation's own input. That is safe: a join that was told has ended on
 * the server, which answers `conflict` to the second notice.
 */

/** Pings in one request. Sending one such batch takes the server some 20 ms. */
const BATCH = 250;
/** Requests in flight: with BATCH they make the 1,000 pings that may be in flight to one remote host. */
const REQUESTS_IN_FLIGHT = 4;
/** Table writes in flight for one batch, and batches that are written at a time. */
const WRITES_IN_FLIGHT = 16;
const BATCHES_WRITTEN = 4;
/** Batches that may wait to be written, so that nobody's notice waits for a slow table. */
const BATCHES_BEHIND = 12;
/** Rooms whose answer one invocation remembers. */
const MAX_ROOMS_REMEMBERED = 10_000;
/** A flapping link postpones a check by at most so many delays (rule 5). */
const MAX_DELAYS_POSTPONED = 5;
/** Seconds before undecided joins are asked about again: doubling from the first to the last. */
const REASK_FIRST_SECONDS = 5;
const REASK_LAST_SECONDS = 60;
/**
 * What is kept for the end of an invocation, in milliseconds: the notices of the last batches, and the writes of all that may be
 * behind. With four that are pinged and four that are written, 5,000 of them: 42 a second will do.
 */
const CLOSING_MS = 120_000;

export interface Totals {
  /** Pings sent, over all rounds. */
  readonly pinged: number;
  readonly joined: number;
  readonly left: number;
  /** Treated as left, as nothing could be learned of them. */
  readonly undecided: number;
  readonly gone: number;
  readonly stale: number;
  /** Notices delivered; in a dry run, those that would have been sent. */
  readonly notified: number;
}

/** The state of one execution: the input and the output of each invocation. */
export interface CheckState extends Close {
  /** The execution's name, for logs. */
  readonly id: string;
  /** When the delay is over by our own clock, in seconds since the epoch. */
  readonly due: number;
  /** What the next Wait state waits for, in seconds. */
  readonly wait: number;
  readonly next: 'page' | 'wait' | 'done';
  readonly round: number;
  /** Where this round goes on: the key of the last join that was dealt with. */
  readonly cursor?: string;
  /** In a later round: joins after this key have never been asked about, as their host was out of reach. */
  readonly unaskedAfter?: string;
  /** When patience ends, in seconds since the epoch. */
  readonly deadline?: number;
  /** This round is the last: the undecided are told. */
  readonly final?: boolean;
  /** Joins that this round left undecided. */
  readonly open: number;
  readonly superseded?: boolean;
  readonly totals: Totals;
}

export const NO_TOTALS: Totals = { pinged: 0, joined: 0, left: 0, undecided: 0, gone: 0, stale: 0, notified: 0 };

/** A join as the table holds it. */
export interface StoredJoin extends Join {
  readonly key: string;
  /** `at` of the check that left it undecided. */
  readonly undecidedBy?: number;
}

/** What the table remembers of the closes of one pair of hosts. */
export interface CloseRecord {
  /** The newest close. */
  readonly at: number;
  /** The delay that it asks for, in seconds. */
  readonly delay: number;
  /** No later than the oldest close that no check has begun to answer. */
  readonly since?: number;
  /** The close whose check began last. */
  readonly checked?: number;
}

/** What a check needs of the world. */
export interface CheckPorts {
  /** Joins on a remote host made before a moment (µs), in the order of their keys, after `cursor`. */
  readJoins(close: Close, cursor: string | undefined): AsyncIterable<readonly StoredJoin[], void>;
  /** Sends stanzas to the server and returns the answers by id. `timeout` in seconds. */
  send(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>>;
  /** Deletes a join's row, unless a newer join has taken its place. */
  forget(join: StoredJoin): Promise<void>;
  /** Remembers, or forgets, that a check left this join undecided. */
  markUndecided(join: StoredJoin, checkAt: number | undefined): Promise<void>;
  readClose(close: Close): Promise<CloseRecord | undefined>;
  /** Records that this check has begun. Returns false when the record is no longer the one that was read. */
  claimClose(close: Close, seen: CloseRecord): Promise<boolean>;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds that this invocation may still take. */
  remaining(): number;
}

/**
 * How long to wait so that the check begins `delay` seconds after the close, in whole seconds (rule 3).
 *
 * Both moments are of the server's clock, so that it does not matter how far ours is from it.
 * @param sentSeconds the sender's own timestamp of the report
 */
export function waitSeconds(close: Close, sentSeconds: number): number {
  const elapsed = sentSeconds - close.at / 1e6;
  return Math.min(close.delay, Math.max(0, Math.ceil(close.delay - elapsed)));
}

/**
 * Whether a newer close's check will do this one's work (rule 5).
 *
 * A newer close postpones, but never beyond five delays after the oldest close that is still unanswered.
 */
export function isSuperseded(close: Close, record: CloseRecord): boolean {
  if (record.checked === close.at) return false; // it is this check that began, and now runs again
  if (record.checked !== undefined && record.checked > close.at) return true;
  if (record.at <= close.at) return false;
  const oldest = Math.min(record.since ?? close.at, close.at);
  return record.at + record.delay * 1e6 <= oldest + MAX_DELAYS_POSTPONED * record.delay * 1e6;
}

/** Takes up the check, unless a newer one stands in for it. */
async function begin(state: CheckState, ports: CheckPorts): Promise<boolean> {
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const record = await ports.readClose(state);
    if (record === undefined) return true; // expired, or deleted by hand: better checked twice than never
    if (isSuperseded(state, record)) return false;
    if (await ports.claimClose(state, record)) return true;
  }
  return true; // closes come faster than they can be read: the joins are all the same
}

/**
 * Runs one invocation of a check and returns the next state.
 * @throws whatever the ports throw, once what was in flight has come to its end
 */
export async function runCheck(input: CheckState, ports: CheckPorts): Promise<CheckState> {
  const state = input.cursor === undefined ? startRound(input, ports.now()) : input;
  if (state.round === 0 && state.cursor === undefined && !(await begin(state, ports))) {
    return { ...state, next: 'done', superseded: true };
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
  #open: number;
  /** The host is out of reach: nothing more is sent to it in this invocation. */
  #refused = false;
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
      await this.#writes.end();
    });
    await allToTheirEnd([...workers, rest]);
  }

  result(): CheckState {
    const { cursor: _cursor, unaskedAfter, ...rest } = this.#state;
    const state = { ...rest, totals: this.#totals, open: this.#open };
    const keep = (key: string | undefined): { unaskedAfter?: string } => (key === undefined ? {} : { unaskedAfter: key });
    if (this.#finished) {
      if (this.#open === 0) return { ...state, next: 'done' };
      return { ...state, next: 'wait', wait: this.#reaskSeconds(), round: state.round + 1 };
    }
    if (!this.#isHopeless()) return { ...state, ...keep(unaskedAfter), ...(this.#cursor === undefined ? {} : { cursor: this.#cursor }), next: 'page' };
    const unasked = state.round === 0 ? this.#cursor : unaskedAfter && later(unaskedAfter, this.#cursor ?? '');
    return { ...state, ...keep(unasked), next: 'wait', wait: this.#reaskSeconds(), round: state.round + 1 };
  }

  /** Nothing more can be learned in this round. In the last round, users are told all the same. */
  #isHopeless(): boolean {
    return this.#refused && this.#state.final !== true;
  }

  #reaskSeconds(): number {
    const backoff = Math.min(REASK_LAST_SECONDS, REASK_FIRST_SECONDS * 2 ** Math.min(this.#state.round, 10));
    const left = (this.#state.deadline ?? 0) - this.#ports.now() / 1000;
    return Math.max(1, Math.ceil(Math.min(backoff, left)));
  }

  /** The joins of this round, first one alone, then in batches, for as long as there is time. */
  async *#batches(): AsyncGenerator<readonly StoredJoin[], void> {
    const mayTakeMs = 2 * this.#state.timeout * 1000 + CLOSING_MS; // a ping, a question to its room, and the rest
    let taken = 0;
    let batch: StoredJoin[] = [];
    const mayTake = (): boolean => taken === 0 || (!this.#failed && !this.#isHopeless() && this.#ports.remaining() > mayTakeMs);
    const take = (): readonly StoredJoin[] => {
      const ready = batch;
      batch = [];
      taken += 1;
      this.#cursor = ready.at(-1)?.key;
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
    return round === 0 || join.undecidedBy === at || (unaskedAfter !== undefined && later(join.key, unaskedAfter) !== unaskedAfter);
  }

  /** Takes a batch from ping to notice, and hands in what is to be written of it. */
  async #settle(batch: readonly StoredJoin[]): Promise<void> {
    const { host, final } = this.#state;
    const answers = await this.#ping(batch);
    const verdicts = new Map(batch.map((join): [StoredJoin, PingVerdict] => [join, pingVerdict(answers.get(stanzaId(join)), host)]));
    await this.#askRooms(verdicts);
    const told = await this.#tell(
      batch.filter((join) => verdicts.get(join) === 'left' || (final === true && verdicts.get(join) === 'undecided')),
      answers,
    );
    const records = batch.map((join) => () => this.#record(join, verdicts.get(join) as Verdict, told.get(join)));
    await this.#writes.add(() => inParallel(records, WRITES_IN_FLIGHT));
  }

  async #ping(batch: readonly StoredJoin[]): Promise<ReadonlyMap<string, Answer>> {
    if (this.#refused) return new Map();
    const answers = await this.#ports.send(this.#state.host, batch.map(ping), this.#state.timeout);
    this.#totals.pinged += batch.length;
    if (batch.every((join) => speaksForHost(answers.get(stanzaId(join)), this.#state.host))) this.#refused = true;
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
      const asking = [...rooms].filter(([room]) => !verdicts.has(room)).flatMap(([, occupants]) => occupants.slice(turn, turn + 1));
      if (asking.length === 0) break;
      const answers = await this.#ports.send(host, asking.map(roomQuery), timeout);
      for (const join of asking) {
        const verdict = roomVerdict(answers.get(stanzaId(join)), host);
        if (verdict !== 'gone' && verdict !== 'stale') verdicts.set(join.room, verdict);
      }
    }
    for (const room of rooms.keys()) if (!verdicts.has(room)) this.#rooms.delete(room); // a later batch may ask
    return verdicts;
  }

  /** Sends the notices. Returns what has become of each join: told is its own verdict confirmed. */
  async #tell(joins: readonly StoredJoin[], pings: ReadonlyMap<string, Answer>): Promise<ReadonlyMap<StoredJoin, 'told' | 'gone' | 'stale'>> {
    const { host, timeout, dryRun } = this.#state;
    if (dryRun || joins.length === 0) return new Map(joins.map((join) => [join, 'told']));
    const notices = joins.map((join) => notice(join, roomsOwnText(pings.get(stanzaId(join)), host)));
    const answers = await this.#ports.send(host, notices, timeout);
    return new Map(
      joins.map((join) => {
        const answer = answers.get(stanzaId(join));
        if (answer?.kind !== 'error') return [join, 'told'];
        return [join, answer.condition === 'recipient-unavailable' ? 'gone' : 'stale'];
      }),
    );
  }

  async #record(join: StoredJoin, verdict: Verdict, told: 'told' | 'gone' | 'stale' | undefined): Promise<void> {
    const { at, dryRun } = this.#state;
    if (verdict === 'undecided' && told === undefined) {
      this.#open += 1;
      if (join.undecidedBy !== at) await this.#ports.markUndecided(join, at);
      return;
    }
    this.#totals[told === undefined || told === 'told' ? verdict : told] += 1;
    if (told === 'told') this.#totals.notified += 1;
    const stays = verdict === 'joined' || (told === 'told' && dryRun);
    if (!stays) await this.#ports.forget(join);
    else if (join.undecidedBy !== undefined) await this.#ports.markUndecided(join, undefined);
  }
}

function roomsOwnText(answer: Answer | undefined, host: string): string | undefined {
  return answer?.kind === 'error' && answer.by !== host ? answer.text : undefined;
}

/** The later of two keys in the table's own order, that of their bytes. */
function later(one: string, other: string): string {
  return Buffer.compare(Buffer.from(one), Buffer.from(other)) > 0 ? one : other;
}

/** Tasks that are done behind those who hand them in: some at a time, in their order, while only so many may wait. */
class Backlog {
  readonly #atATime: number;
  readonly #mayWait: number;
  #waiting: (() => Promise<void>)[] = [];
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;

  constructor(atATime: number, mayWait: number) {
    this.#atATime = atATime;
    this.#mayWait = mayWait;
  }

  /** Takes a task, and returns once no more wait than may. @throws what a task has thrown; then nothing more is begun */
  async add(task: () => Promise<void>): Promise<void> {
    this.#waiting.push(task);
    this.#begin();
    while (this.#waiting.length > this.#mayWait) await Promise.race(this.#running);
    this.#check();
  }

  /** Returns once all is done. @throws what a task has thrown */
  async end(): Promise<void> {
    while (this.#running.size > 0) await Promise.race(this.#running);
    this.#check();
  }

  #begin(): void {
    if (this.#failure !== undefined) this.#waiting = [];
    while (this.#running.size < this.#atATime) {
      const task = this.#waiting.shift();
      if (task === undefined) return;
      const running = task()
        .catch((error: unknown) => {
          this.#failure ??= { error };
        })
        .finally(() => {
          this.#running.delete(running);
          this.#begin();
        });
      this.#running.add(running);
    }
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}

async function allToTheirEnd(promises: readonly Promise<void>[]): Promise<void> {
  const ends = await Promise.allSettled(promises);
  const failure = ends.find((end) => end.status === 'rejected');
  if (failure) throw failure.reason;
}

/** Runs tasks, at most `limit` of them at a time. All that began come to an end before the first failure is thrown. */
export async function inParallel(tasks: readonly (() => Promise<void>)[], limit: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let task = tasks[next++]; task !== undefined; task = tasks[next++]) await task();
  };
  await allToTheirEnd(Array.from({ length: Math.min(limit, tasks.length) }, worker));
}
