import { REENTRIES_TO_HOST } from './limits.ts';
import type { Lost } from './notices.ts';
import type { ReentryOutcome } from './reentry.ts';

/**
 * Rule 10 (docs/rules.md): which sessions re-enter next, and how many at a time.
 *
 * The pace is a window, not a rate. A session that enters is shown to all occupants, and they to it. Presence grows
 * with the square of the users who return, so the rate that a chat service can bear depends on the room. The next
 * sessions enter when the ones before are in, and so follow the speed of the service. The size of the window follows
 * the time that answers take, because live messages on the same streams wait as long.
 */

/** Re-entries under way for one room. */
const MAX_IN_ROOM = 2;
/** The first size in an invocation, and the smallest one: two rooms without an answer show the state of the host. */
const FIRST_SIZE = 4;
const MIN_SIZE = 2;
/** How much longer than the fastest a request may take, in milliseconds. */
const MAX_DELAY_MS = 250;

/** How many sessions may re-enter at a time, from the time that earlier requests took. */
class Window {
  #size = FIRST_SIZE;
  /** What a request takes when nothing waits: the way to the chat service and back. */
  #leastMs = Infinity;
  /** It has been too wide once: from then on it grows by one at a time. */
  #wasTooWide = false;

  get size(): number {
    return this.#size;
  }

  /** Each session makes a request take longer. The next request holds as many as keep within the limit. */
  learn(sent: number, tookMs: number): void {
    if (sent === 0) return;
    this.#leastMs = Math.min(this.#leastMs, tookMs);
    const fit = Math.floor((sent * MAX_DELAY_MS) / Math.max(1, tookMs - this.#leastMs));
    this.#wasTooWide ||= fit < this.#size;
    const wider = this.#wasTooWide ? this.#size + 1 : 2 * this.#size;
    this.#size = Math.max(MIN_SIZE, Math.min(REENTRIES_TO_HOST, wider, fit));
  }
}

/** The sessions that wait for re-entry in one invocation of a check. */
export class ReentryQueue {
  readonly #window = new Window();
  readonly #rooms = new Map<string, Lost[]>();
  /** Rooms that no session is to enter any more. */
  readonly #shut = new Set<string>();
  #areAllShut = false;
  #isLinkDown = false;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** No session can re-enter for now: the link broke during a whole request. */
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

  /** Takes the next request: the rooms with the fewest waiting sessions first. Empty if all rooms are shut. */
  next(): readonly Lost[] {
    const request: Lost[] = [];
    const open = [...this.#rooms].filter(([room]) => !this.#isShut(room));
    const { size } = this.#window;
    const inRoom = Math.min(MAX_IN_ROOM, Math.ceil(size / 2));
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
   * Learns from a request that is finished. A room that did not answer is not asked again. No room is asked again if a
   * whole request for several rooms was not answered, or was lost with the link.
   * @param tookMs from the request to its answer, in milliseconds
   */
  learn(request: readonly Lost[], outcomes: readonly ReentryOutcome[], tookMs: number): void {
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

  /** Takes out the sessions whose room is shut: they are to be notified. */
  takeShut(): readonly Lost[] {
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
