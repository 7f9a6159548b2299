import { readFileSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Agent, type IncomingHttpHeaders, request as httpRequest } from 'node:http';
import type { Join } from '../functions/core/events.ts';
import { type Signing, WEBHOOK_SECRET, signedHeaders } from './fuzz.ts';
import type { Input, World } from './fuzz-stanza-input.ts';
import { Lab, until } from './lab.ts';
import { PrintedSettings } from './printed-settings.ts';
import { ScriptedMuc } from './scripted-muc.ts';
import { type Kind, startServer } from './servers.ts';
import { startSink } from './sink.ts';
import { User } from './user.ts';
import type { XmppServer } from './xmpp-server.ts';

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** What is sent to the server's HTTP port. */
export interface Request {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** How long another request had to wait, and the server's processor time during that, in milliseconds. */
export interface Cost {
  readonly wait: number;
  readonly own: number;
}

/** The memory that a server uses, inside its interpreter and as a process. */
export interface Memory {
  readonly heapKb: number;
  readonly rssMb: number;
}

/** Requests that are sent at a time. */
export const AT_ONCE = 8;
const ANSWER_WITHIN_MS = 30_000;
const API = '/ping_muc/stanzas';
/** It passes through all parts that requests have in common, and is refused before any stanza is looked at. */
const PROBE = Buffer.from('<probe/>');

/** Header values as an HTTP client can send them. */
const inHeader = (text: string): string =>
  text
    .replace(/[^\t\x20-\x7e\x80-\xff]/g, '?')
    .trim()
    .slice(0, 2000);

/** A server, a session in a room of another server, and a client of the API. */
export class StanzaTestBed {
  readonly lab: Lab;
  readonly home: XmppServer;
  readonly juliet: User;
  readonly muc: ScriptedMuc;
  readonly world: World;
  /** The real join. */
  readonly join: Join;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
  readonly #prober = new Agent({ keepAlive: true, maxSockets: 1 });

  private constructor(lab: Lab, home: XmppServer, juliet: User, muc: ScriptedMuc, join: Join) {
    [this.lab, this.home, this.juliet, this.muc, this.join] = [lab, home, juliet, muc, join];
    const digits = Array.from(String(join.at), (digit, index) =>
      index % 5 === 2 ? String((Number(digit) + 5) % 10) : digit,
    );
    this.world = {
      host: home.host,
      user: juliet.jid,
      room: join.room,
      nick: join.nick,
      at: digits.join(''),
      other: muc.room('elsewhere'),
    };
  }

  /** @param kind of the server that is fuzzed */
  static async open(kind: Kind): Promise<StanzaTestBed> {
    const lab = await Lab.open();
    try {
      const { url, events } = await startSink(lab);
      const host = lab.address(2);
      const runtime = { printed: PrintedSettings.for(url, WEBHOOK_SECRET) };
      const home = await startServer(kind, lab, {
        host,
        users: ['juliet'],
        module: { runtime, changes: { ping_muc_reenter: true } },
      });
      const domain = lab.address(4);
      const away = await startServer(kind, lab, { host: lab.address(3), components: [domain] });
      const muc = await ScriptedMuc.open(lab, away, domain);
      const juliet = await User.connect(lab, home, 'juliet', 'phone');
      const room = muc.room('fuzzed');
      await juliet.join(room, 'Juliet');
      const joined = await until('the join is reported', () => events.find(({ type }) => type === 'muc.joined'));
      return new StanzaTestBed(lab, home, juliet, muc, {
        host,
        remote: domain,
        room,
        user: juliet.jid,
        nick: 'Juliet',
        at: joined.at,
      });
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /** @param agent false: on a connection of its own */
  post({ method = 'POST', path, headers, body }: Request, agent: Agent | false): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const options = {
        host: this.home.host,
        port: 5280,
        path,
        method,
        agent,
        timeout: ANSWER_WITHIN_MS,
        headers: { ...headers, 'content-length': body.length },
      };
      const request = httpRequest(options, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks).toString(),
          }),
        );
        response.on('error', reject);
      });
      request.on('timeout', () => request.destroy(new Error('no answer within 30 seconds')));
      request.on('error', reject);
      request.end(body);
    });
  }

  /** Sends an input to the stanza API. */
  send({ body, signing, strange, type }: Input): Promise<Reply> {
    const headers = { ...this.#signed(body, signing, strange.map(inHeader)), 'content-type': inHeader(type) };
    return this.post({ path: API, headers, body }, this.#agent);
  }

  #signed(body: Buffer, signing: Signing = 'right', strange: readonly string[] = []): Record<string, string> {
    return signedHeaders({ body, signing, strange }, `msg_${crypto.randomUUID()}`);
  }

  /**
   * Sends a small request, repeatedly, while something else runs. Returns the longest time to its answer, and how much
   * processor time the server used during that, at most: on several processors, it need not have been in the way.
   */
  async longestWait(meanwhile: () => Promise<unknown>): Promise<Cost> {
    const longest = { wait: 0, own: 0 };
    let over = false as boolean;
    const end = (): void => {
      over = true;
    };
    meanwhile().then(end, end);
    do {
      const headers = { ...this.#signed(PROBE), 'content-type': 'application/xmpp+xml' };
      const [before, began] = [this.#worked(), performance.now()];
      await this.post({ path: API, headers, body: PROBE }, this.#prober);
      const wait = performance.now() - began;
      longest.wait = Math.max(longest.wait, wait);
      longest.own = Math.max(longest.own, Math.min(wait, this.#worked() - before));
    } while (!over);
    return longest;
  }

  /** The processor time of all threads of the server, in milliseconds. */
  #worked(): number {
    const threads = `/proc/${this.home.pid}/task`;
    const times = readdirSync(threads).map((id) => readFileSync(`${threads}/${id}/schedstat`, 'utf8').split(' ')[0]);
    return times.reduce((sum, nanoseconds) => sum + Number(nanoseconds), 0) / 1e6;
  }

  async memory(): Promise<Memory> {
    const heapKb = await this.home.heapKb();
    const rss = /VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${this.home.pid}/status`, 'utf8'))?.[1];
    return { heapKb, rssMb: Number(rss) / 1024 };
  }

  async close(): Promise<void> {
    this.#agent.destroy();
    this.#prober.destroy();
    await this.lab.close();
  }
}
