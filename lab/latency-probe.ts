import { once } from 'node:events';
import { MessageChannel, type MessagePort, Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import type { Element } from '@xmpp/xml';
import { type Lab, sleep, until } from './lab.ts';
import type { XmppServer } from './xmpp-server.ts';
import { User } from './user.ts';

/** How long messages that were sent last may take. */
const IN_FLIGHT_MS = 30_000;

type Server = Pick<XmppServer, 'host' | 'service' | 'password'>;

interface Person {
  readonly at: Server;
  readonly name: string;
}

interface ProbeSetup {
  readonly sender: Person;
  readonly receiver: Person;
  /** The rooms, and for each the milliseconds between two messages. */
  readonly rooms: ReadonlyMap<string, number>;
}

/** How late the messages in one room arrived, in milliseconds. */
export interface Latency {
  readonly messages: number;
  readonly median: number;
  readonly longest: number;
  /** Messages that did not arrive. */
  readonly lost: number;
}

type Command = 'start' | 'stop' | 'leave';

interface PendingCommand {
  readonly command: Command;
  readonly reply: MessagePort;
}

/**
 * Measures how late live messages arrive. A user of the chat server sends the time to some rooms, and a user of the
 * other server receives it. A room sends each message to all its occupants, so in a large room the messages themselves
 * cause delay. Both users are in a thread of their own, so that they do not wait while the test's other clients are
 * busy.
 */
export class LatencyProbe {
  readonly #worker: Worker;
  /** Rejected when the thread ends. */
  readonly #ended: Promise<never>;

  private constructor(worker: Worker) {
    this.#worker = worker;
    this.#ended = new Promise((_resolve, reject) => {
      worker.once('error', reject).once('exit', () => reject(new Error('the latency probe has ended')));
    });
    this.#ended.catch(() => undefined); // the next command reports the error
  }

  /** Both users enter the rooms; no messages are sent yet. */
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
    await this.#send('start');
  }

  /** Stops. Returns the latency of the messages since `startSending`, by room. */
  async stopSending(): Promise<ReadonlyMap<string, Latency>> {
    return (await this.#send('stop')) as ReadonlyMap<string, Latency>;
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
    await User.connect(keep, sender.at, sender.name, 'latency-probe'),
    await User.connect(keep, receiver.at, receiver.name, 'latency-probe'),
  ];
  for (const room of rooms.keys()) {
    await sendingUser.join(room, sender.name);
    await receivingUser.join(room, receiver.name);
  }
  // by room: messages that have not arrived, and the delays of those that have
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
  const sendTo = async (room: string, everyMs: number): Promise<void> => {
    while (isSending) {
      const message = String(Date.now());
      inFlight.get(room)?.add(message);
      await sendingUser.sendMessage(room, message);
      await sleep(everyMs);
    }
  };
  const begin = (): void => {
    for (const room of rooms.keys()) {
      inFlight.set(room, new Set());
      delays.set(room, []);
    }
    isSending = true;
    sendingDone = Promise.all([...rooms].map(([room, everyMs]) => sendTo(room, everyMs)));
  };
  const end = async (): Promise<ReadonlyMap<string, Latency>> => {
    isSending = false;
    await sendingDone;
    const hasAllReceived = (): boolean => [...inFlight.values()].every(({ size }) => size === 0);
    await until('all messages have arrived', hasAllReceived, IN_FLIGHT_MS).catch(() => undefined);
    return new Map(Array.from(inFlight, ([room, { size }]) => [room, latency(delays.get(room) ?? [], size)]));
  };
  const execute = async ({ command, reply }: PendingCommand): Promise<void> => {
    if (command === 'start') begin();
    const answer = command === 'stop' ? await end() : undefined;
    if (command === 'leave') for (const part of ends) await part.stop();
    reply.postMessage(answer);
  };
  port.on('message', (pending: PendingCommand) => void execute(pending));
  port.postMessage('ready');
}

function latency(delays: readonly number[], lost: number): Latency {
  const sorted = [...delays].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return { messages: sorted.length + lost, median, longest: sorted.at(-1) ?? 0, lost };
}
