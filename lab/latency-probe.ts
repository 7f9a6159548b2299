import { once } from 'node:events';
import { MessageChannel, type MessagePort, Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import type { Element } from '@xmpp/xml';
import { type Lab, sleep, until } from './lab.ts';
import type { Prosody } from './prosody.ts';
import { User } from './user.ts';

/** What is on its way when the speaker falls silent is waited for so long. */
const IN_FLIGHT_MS = 30_000;

type Server = Pick<Prosody, 'host' | 'service' | 'password'>;

interface Person {
  readonly at: Server;
  readonly name: string;
}

interface ProbeSetup {
  readonly sender: Person;
  readonly receiver: Person;
  /** Where, and how often: the milliseconds between two lines. */
  readonly rooms: ReadonlyMap<string, number>;
}

/** How late lines came, in milliseconds, in one room. */
export interface Latency {
  readonly lines: number;
  readonly median: number;
  readonly longest: number;
  /** Lines that did not come at all. */
  readonly lost: number;
}

type Command = 'speak' | 'fall silent' | 'leave';

interface PendingCommand {
  readonly command: Command;
  readonly reply: MessagePort;
}

/**
 * How late a live message comes: a user of the rooms' server says the time in some rooms, and a user of the other server
 * hears it. Each line goes to everyone in the room, so that in a large one it is the lines that make them late. Both are in a thread of their own: whatever else the test's clients have to read, these do not wait.
 */
export class LatencyProbe {
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
  static async start(lab: Lab, setup: ProbeSetup): Promise<LatencyProbe> {
    const server = ({ host, service, password }: Server): Server => ({ host, service, password });
    const plain = ({ at, name }: Person): Person => ({ at: server(at), name });
    const copy: ProbeSetup = { sender: plain(setup.sender), receiver: plain(setup.receiver), rooms: setup.rooms };
    const worker = new Worker(new URL(import.meta.url), { workerData: copy });
    const latencyProbe = new LatencyProbe(worker);
    lab.keep(latencyProbe);
    await Promise.race([once(worker, 'message'), latencyProbe.#ended]);
    return latencyProbe;
  }

  async startSending(): Promise<void> {
    await this.#send('speak');
  }

  /** Falls silent. Returns how late the lines since `speak` came, by the room. */
  async stopSending(): Promise<ReadonlyMap<string, Latency>> {
    return (await this.#send('fall silent')) as ReadonlyMap<string, Latency>;
  }

  async stop(): Promise<void> {
    await this.#send('leave').catch(() => undefined);
    await this.#worker.terminate();
  }

  async #send(command: Command): Promise<unknown> {
    const { port1, port2 } = new MessageChannel();
    this.#worker.postMessage({ command, reply: port2 } satisfies PendingCommand, [port2]);
    try {
      const [answer] = (await Promise.race([once(port1, 'message'), this.#ended])) as [unknown];
      return answer;
    } finally {
      port1.close();
    }
  }
}

if (!isMainThread && parentPort !== null) await serve(parentPort, workerData as ProbeSetup);

async function serve(port: NonNullable<typeof parentPort>, { sender, receiver, rooms }: ProbeSetup): Promise<void> {
  const ends: { stop(): Promise<void> }[] = [];
  const keep: Pick<Lab, 'keep'> = { keep: (part) => (ends.push(part), part) };
  const [sendingUser, receivingUser] = [
    await User.connect(keep, sender.at, sender.name, 'witness'),
    await User.connect(keep, receiver.at, receiver.name, 'witness'),
  ];
  for (const room of rooms.keys()) {
    await sendingUser.join(room, sender.name);
    await receivingUser.join(room, receiver.name);
  }
  // what is on its way, by the room, and how late the rest came
  const inFlight = new Map<string, Set<string>>();
  const delays = new Map<string, number[]>();
  sendingUser.watch(() => {
    sendingUser.received.length = 0;
  });
  receivingUser.watch((stanza: Element) => {
    receivingUser.received.length = 0;
    const body = stanza.is('message') ? stanza.getChildText('body') : null;
    const [room = ''] = String(stanza.attrs['from']).split('/');
    if (body === null || stanza.getChild('delay') !== undefined || inFlight.get(room)?.delete(body) !== true) return;
    delays.get(room)?.push(Date.now() - Number(body));
  });
  let sendingDone: Promise<unknown> | undefined;
  let isSending = false;
  const startSending = async (room: string, everyMs: number): Promise<void> => {
    while (isSending) {
      const line = String(Date.now());
      inFlight.get(room)?.add(line);
      await sendingUser.sendMessage(room, line);
      await sleep(everyMs);
    }
  };
  const begin = (): void => {
    for (const room of rooms.keys()) {
      inFlight.set(room, new Set());
      delays.set(room, []);
    }
    isSending = true;
    sendingDone = Promise.all([...rooms].map(([room, everyMs]) => startSending(room, everyMs)));
  };
  const end = async (): Promise<ReadonlyMap<string, Latency>> => {
    isSending = false;
    await sendingDone;
    const hasAllReceived = (): boolean => [...inFlight.values()].every(({ size }) => size === 0);
    await until('all lines are heard', hasAllReceived, IN_FLIGHT_MS).catch(() => undefined);
    return new Map(Array.from(inFlight, ([room, { size }]) => [room, latency(delays.get(room) ?? [], size)]));
  };
  const execute = async ({ command, reply }: PendingCommand): Promise<void> => {
    if (command === 'speak') begin();
    const answer = command === 'fall silent' ? await end() : undefined;
    if (command === 'leave') for (const part of ends) await part.stop();
    reply.postMessage(answer);
  };
  port.on('message', (asked: PendingCommand) => void execute(asked));
  port.postMessage('there');
}

function latency(delays: readonly number[], lost: number): Latency {
  const sorted = [...delays].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return { lines: sorted.length + lost, median, longest: sorted.at(-1) ?? 0, lost };
}
