import type { StoredJoin } from './check-state.ts';
import type { Close } from './events.ts';
import type { Answer } from './stanzas.ts';
import { type PingVerdict, isOutOfReach } from './verdict.ts';

/**
 * Rule 10 (docs/rules.md): who may enter the room again, what the answer to it means, and whose turn it is.
 *
 * The pace is a window and not a rate. Whoever enters is shown to all who are there, and they to it: presence grows with
 * the square of those who return, so what a chat service can bear depends on the room. The next enter when those before
 * have been let in, and so follow the speed of the service, whatever it is. How wide the window is follows the time that
 * answers take: it is how long a live message on the same streams waits.
 */

/** Re-entries under way for one room, and for one remote host; the latter is what one request holds at most. */
const MOST_IN_ROOM = 2;
export const MOST_TO_HOST = 16;
/** With how many an invocation begins, and how many are always asked for: two rooms can speak for their host. */
const FIRST_TO_HOST = 4;
const FEWEST_TO_HOST = 2;
/** How much longer than the fastest a request may take, in milliseconds. */
const MORE_MS = 250;

/** Whether the room may be entered again: it is there, and has said itself that the session is not in it. */
export function mayReenter(close: Pick<Close, 'reenter'>, verdict: PingVerdict): boolean {
  return close.reenter && verdict === 'left'; // not `no-room`: that would make a new room with this user as its owner
}

/** Why a re-entry has come to nothing, so that the user is to be told. */
type Failure =
  /** The room, or whoever speaks for it, does not let this session in. */
  | 'refused'
  /** Nobody has answered. */
  | 'unanswered'
  /** The server has nobody re-enter this room, for its size. */
  | 'too large'
  /** The server has nobody re-enter at all. */
  | 'off';

/** What has become of a re-entry. */
export type Outcome =
  | Failure
  /** The room has let the session in: a new join. */
  | 'back'
  /** The session has ended. */
  | 'gone'
  /** The join has been left, replaced or told. */
  | 'stale'
  /** The session's own attempt to enter is under way, or an earlier re-entry. */
  | 'rejoining'
  /** The host is out of reach, or a stream ended while the answer was awaited: nobody knows whether the room let it in. */
  | 'broken';

const FAILURES: ReadonlySet<Outcome> = new Set<Failure>(['refused', 'unanswered', 'too large', 'off']);

/** What the local server's own errors say of a re-entry. An older server does not take the stanza: policy-violation. */
const OWN_WORD: Readonly<Record<string, Outcome>> = {
  'recipient-unavailable': 'gone',
  conflict: 'stale',
  'resource-constraint': 'too large',
  'feature-not-implemented': 'off',
  'policy-violation': 'off',
};

/**
 * What the answer to a re-entry means.
 * @param host the local host: errors that it made itself carry its name in `by`
 */
export function outcomeOf(answer: Answer | undefined, host: string): Outcome {
  if (answer === undefined) return 'unanswered';
  if (isOutOfReach(answer))
    return answer.kind === 'error' && answer.by === host && isLinkDown(answer) ? 'broken' : 'unanswered';
  if (answer.kind === 'result') return 'back';
  if (answer.by !== host) return 'refused';
  return answer.isRejoining ? 'rejoining' : (OWN_WORD[answer.condition] ?? 'refused');
}

/** Whether our server could not send it, or lost the stream: that says nothing of the room, and may pass (rule 7). */
function isLinkDown({ silence }: Pick<Extract<Answer, { kind: 'error' }>, 'silence'>): boolean {
  return silence === undefined || silence === 'broken';
}

/** Whether a notice is to follow. */
export function hasFailed(outcome: Outcome): outcome is Failure {
  return FAILURES.has(outcome);
}

/** Someone whom the room does not know any more. */
export interface Lost {
  readonly join: StoredJoin;
  /** What the room said of it, for a notice. */
  readonly reason: string | undefined;
}

/** How many may re-enter at a time, by how long those before took. */
class Window {
  #size = FIRST_TO_HOST;
  /** What a request takes where nothing waits: the way to the chat service and back. */
  #leastMs = Infinity;
  /** It has been too wide once: from there on it grows by one at a time. */
  #wasTooWide = false;

  get size(): number {
    return this.#size;
  }

  /** A request takes longer by each whom it holds, so the next is to hold as many as fit. */
  learn(sent: number, tookMs: number): void {
    if (sent === 0) return;
    this.#leastMs = Math.min(this.#leastMs, tookMs);
    const fit = Math.floor((sent * MORE_MS) / Math.max(1, tookMs - this.#leastMs));
    this.#wasTooWide ||= fit < this.#size;
    const wider = this.#wasTooWide ? this.#size + 1 : 2 * this.#size;
    this.#size = Math.max(FEWEST_TO_HOST, Math.min(MOST_TO_HOST, wider, fit));
  }
}

/** Those who are to re-enter, in one invocation of a check. */
export class ReentryQueue {
  readonly #window = new Window();
  readonly #rooms = new Map<string, Lost[]>();
  /** Rooms that nobody is to enter any more. */
  readonly #shut = new Set<string>();
  #areAllShut = false;
  #isLinkDown = false;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Nobody can re-enter for now: the link broke during a whole request. */
  get isLinkDown(): boolean {
    return this.#isLinkDown;
  }

  add(lost: readonly Lost[]): void {
    for (const one of lost) {
      const others = this.#rooms.get(one.join.room);
      if (others === undefined) this.#rooms.set(one.join.room, [one]);
      else others.push(one);
    }
    this.#size += lost.length;
  }

  /** Takes out the next request: those of the smallest rooms, by how many wait for them. None, where all are hopeless. */
  next(): readonly Lost[] {
    const request: Lost[] = [];
    const open = [...this.#rooms].filter(([room]) => !this.#isShut(room));
    const { size } = this.#window;
    const inRoom = Math.min(MOST_IN_ROOM, Math.ceil(size / 2));
    for (const [room, waiting] of open.sort(([, one], [, other]) => one.length - other.length)) {
      const most = Math.min(inRoom, size - request.length);
      if (most === 0) break;
      request.push(...waiting.splice(0, most));
      if (waiting.length === 0) this.#rooms.delete(room);
    }
    this.#size -= request.length;
    return request;
  }

  /**
   * Learns from a request that has come back. A room that did not answer is not asked again; nor is any other, if a whole
   * request for several rooms went unanswered, or was lost with the link.
   * @param tookMs from the request to its answer, in milliseconds
   */
  learn(request: readonly Lost[], outcomes: readonly Outcome[], tookMs: number): void {
    this.#window.learn(request.length, tookMs);
    request.forEach(({ join }, index) => {
      const outcome = outcomes[index];
      if (outcome === 'unanswered' || outcome === 'too large') this.#shut.add(join.room);
      if (outcome === 'off') this.#areAllShut = true;
    });
    if (request.length > 0 && outcomes.every((outcome) => outcome === 'broken')) this.#isLinkDown = true;
    const rooms = new Set(request.map(({ join }) => join.room)).size;
    if (rooms > 1 && outcomes.every((outcome) => outcome === 'unanswered')) this.#areAllShut = true;
  }

  /** Takes out those who can't re-enter any more, by what has been learned: they are to be told. */
  takeHopeless(): readonly Lost[] {
    return this.#take((room) => this.#isShut(room));
  }

  /** Takes out all. */
  takeAll(): readonly Lost[] {
    return this.#take(() => true);
  }

  #isShut(room: string): boolean {
    return this.#areAllShut || this.#shut.has(room);
  }

  #take(isTaken: (room: string) => boolean): readonly Lost[] {
    const taken: Lost[] = [];
    for (const [room, waiting] of this.#rooms) {
      if (!isTaken(room)) continue;
      for (const one of waiting) taken.push(one);
      this.#rooms.delete(room);
    }
    this.#size -= taken.length;
    return taken;
  }
}
