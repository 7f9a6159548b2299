import { once } from 'node:events';
import { MessageChannel, type MessagePort, Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import type { Element } from '@xmpp/xml';
import { type Lab, sleep, until } from './lab.ts';
import type { Prosody } from './prosody.ts';
import { User } from './user.ts';

/** What is on its way when the speaker falls silent is waited for so long. */
const ON_ITS_WAY_MS = 30_000;

type Door = Pick<Prosody, 'host' | 'service' | 'password'>;

interface Person {
  readonly at: Door;
  readonly name: string;
}

interface Stage {
  readonly speaker: Person;
  readonly listener: Person;
  /** Where, and how often: the milliseconds between two lines. */
  readonly rooms: ReadonlyMap<string, number>;
}

/** How late lines came, in milliseconds, in one room. */
export interface Lateness {
  readonly lines: number;
  readonly median: number;
  readonly longest: number;
  /** Lines that did not come at all. */
  readonly lost: number;
}

type Order = 'speak' | 'fall silent' | 'leave';

interface Asked {
  readonly order: Order;
  readonly reply: MessagePort;
}

/**
 * How late a live message comes: a user of the rooms' server says the time in some rooms, and a user of the other server
 * hears it. Each line goes to everyone in the room, so that in a large one it is the lines that make them late. Both are in a thread of their own: whatever else the test's clients have to read, these do not wait.
 */
export class Witness {
  readonly #worker: Worker;
  /** Why there is no thread any more. */
  readonly #ended: Promise<never>;

  private constructor(worker: Worker) {
    this.#worker = worker;
    this.#ended = new Promise((_resolve, reject) => {
      worker.once('error', reject).once('exit', () => reject(new Error('the witness has left')));
    });
    this.#ended.catch(() => undefined); // whoever asks it something has the error
  }

  /** Both enter the rooms, and say nothing yet. */
  static async start(lab: Lab, stage: Stage): Promise<Witness> {
    const door = ({ host, service, password }: Door): Door => ({ host, service, password });
    const plain = ({ at, name }: Person): Person => ({ at: door(at), name });
    const copy: Stage = { speaker: plain(stage.speaker), listener: plain(stage.listener), rooms: stage.rooms };
    const worker = new Worker(new URL(import.meta.url), { workerData: copy });
    const witness = new Witness(worker);
    lab.keep(witness);
    await Promise.race([once(worker, 'message'), witness.#ended]);
    return witness;
  }

  async speak(): Promise<void> {
    await this.#order('speak');
  }

  /** Falls silent. Returns how late the lines since `speak` came, by the room. */
  async fallSilent(): Promise<ReadonlyMap<string, Lateness>> {
    return (await this.#order('fall silent')) as ReadonlyMap<string, Lateness>;
  }

  async stop(): Promise<void> {
    await this.#order('leave').catch(() => undefined);
    await this.#worker.terminate();
  }

  async #order(order: Order): Promise<unknown> {
    const { port1, port2 } = new MessageChannel();
    this.#worker.postMessage({ order, reply: port2 } satisfies Asked, [port2]);
    try {
      const [answer] = (await Promise.race([once(port1, 'message'), this.#ended])) as [unknown];
      return answer;
    } finally {
      port1.close();
    }
  }
}

if (!isMainThread && parentPort !== null) await serve(parentPort, workerData as Stage);

async function serve(port: NonNullable<typeof parentPort>, { speaker, listener, rooms }: Stage): Promise<void> {
  const ends: { stop(): Promise<void> }[] = [];
  const keep: Pick<Lab, 'keep'> = { keep: (part) => (ends.push(part), part) };
  const [speaks, hears] = [
    await User.connect(keep, speaker.at, speaker.name, 'witness'),
    await User.connect(keep, listener.at, listener.name, 'witness'),
  ];
  for (const room of rooms.keys()) {
    await speaks.join(room, speaker.name);
    await hears.join(room, listener.name);
  }
  // what is on its way, by the room, and how late the rest came
  const said = new Map<string, Set<string>>();
  const late = new Map<string, number[]>();
  speaks.watch(() => {
    speaks.received.length = 0;
  });
  hears.watch((stanza: Element) => {
    hears.received.length = 0;
    const body = stanza.is('message') ? stanza.getChildText('body') : null;
    const [room = ''] = String(stanza.attrs['from']).split('/');
    if (body === null || stanza.getChild('delay') !== undefined || said.get(room)?.delete(body) !== true) return;
    late.get(room)?.push(Date.now() - Number(body));
  });
  let speaking: Promise<unknown> | undefined;
  let mayGoOn = false;
  const speak = async (room: string, everyMs: number): Promise<void> => {
    while (mayGoOn) {
      const line = String(Date.now());
      said.get(room)?.add(line);
      await speaks.say(room, line);
      await sleep(everyMs);
    }
  };
  const begin = (): void => {
    for (const room of rooms.keys()) {
      said.set(room, new Set());
      late.set(room, []);
    }
    mayGoOn = true;
    speaking = Promise.all([...rooms].map(([room, everyMs]) => speak(room, everyMs)));
  };
  const end = async (): Promise<ReadonlyMap<string, Lateness>> => {
    mayGoOn = false;
    await speaking;
    const isAllHeard = (): boolean => [...said.values()].every(({ size }) => size === 0);
    await until('all lines are heard', isAllHeard, ON_ITS_WAY_MS).catch(() => undefined);
    return new Map(Array.from(said, ([room, { size }]) => [room, lateness(late.get(room) ?? [], size)]));
  };
  const obey = async ({ order, reply }: Asked): Promise<void> => {
    if (order === 'speak') begin();
    const answer = order === 'fall silent' ? await end() : undefined;
    if (order === 'leave') for (const part of ends) await part.stop();
    reply.postMessage(answer);
  };
  port.on('message', (asked: Asked) => void obey(asked));
  port.postMessage('there');
}

function lateness(delays: readonly number[], lost: number): Lateness {
  const sorted = [...delays].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return { lines: sorted.length + lost, median, longest: sorted.at(-1) ?? 0, lost };
}
