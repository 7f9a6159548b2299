import type { Send, StoredJoin } from './check-state.ts';
import { roomQuery, stanzaId } from './stanzas.ts';
import { type Verdict, roomVerdict } from './verdict.ts';

/** Rooms whose answers one invocation remembers. */
const MAX_ROOMS_REMEMBERED = 10_000;

type RoomVerdicts = ReadonlyMap<string, Verdict>;

/** Asks rooms themselves (disco#info, rule 6 in docs/rules.md), once in each invocation, and keeps the answers. */
export class RoomQuestions {
  readonly #host: string;
  readonly #send: Send;
  /** The answers by room, each with the others of its question; or their promise while the question is in flight. */
  readonly #answers = new Map<string, Promise<RoomVerdicts>>();

  /** @param host the local host */
  constructor(host: string, send: Send) {
    this.#host = host;
    this.#send = send;
  }

  /** The verdicts of the rooms of these joins, by room. */
  async ask(joins: readonly StoredJoin[]): Promise<RoomVerdicts> {
    const verdicts = new Map<string, Verdict>();
    const open = Map.groupBy(joins, (join) => join.room);
    while (open.size > 0) {
      const own = this.#askUnknown(open);
      const rooms = [...open.keys()];
      const answers = await Promise.all(rooms.map(async (room) => (await this.#answers.get(room))?.get(room)));
      rooms.forEach((room, index) => {
        const verdict = answers[index];
        // another batch's question found no session to ask with, or its answer is no longer remembered: ask ourselves
        if (verdict === undefined && !own.has(room)) return;
        verdicts.set(room, verdict ?? 'undecided');
        open.delete(room);
      });
    }
    return verdicts;
  }

  /** Starts asking those rooms that no batch has asked yet, and returns them. */
  #askUnknown(rooms: ReadonlyMap<string, readonly StoredJoin[]>): ReadonlyMap<string, readonly StoredJoin[]> {
    const unknown = new Map([...rooms].filter(([room]) => !this.#answers.has(room)));
    if (unknown.size === 0) return unknown;
    if (this.#answers.size > MAX_ROOMS_REMEMBERED) this.#answers.clear();
    const asked = this.#askEach(unknown);
    for (const room of unknown.keys()) this.#answers.set(room, asked);
    return unknown;
  }

  /** Asks each room through its occupants, one after the other, until one of them still has a session to ask with. */
  async #askEach(rooms: ReadonlyMap<string, readonly StoredJoin[]>): Promise<RoomVerdicts> {
    const verdicts = new Map<string, Verdict>();
    for (let turn = 0; ; turn += 1) {
      const asking = [...rooms]
        .filter(([room]) => !verdicts.has(room))
        .flatMap(([, occupants]) => occupants.slice(turn, turn + 1));
      if (asking.length === 0) break;
      const answers = await this.#send(asking.map(roomQuery));
      for (const join of asking) {
        const verdict = roomVerdict(answers.get(stanzaId(join)), this.#host);
        if (verdict !== 'gone' && verdict !== 'stale') verdicts.set(join.room, verdict);
      }
    }
    for (const room of rooms.keys()) if (!verdicts.has(room)) this.#answers.delete(room); // a later batch may ask
    return verdicts;
  }
}
