import { readFileSync } from 'node:fs';
import { Parser } from '@xmpp/xml';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { notice, ping, readAnswers, requestBody } from '../functions/core/stanzas.ts';
import { type FuzzOptions, SECRET, Tally, type Violation, fuzz } from './fuzz.ts';
import { AT_ONCE, type Memory, type Reply, StanzaTestBed } from './fuzz-stanza-bed.ts';
import { type Input, inputs } from './fuzz-stanza-input.ts';
import { seeds, strangeRequests } from './fuzz-stanza-seeds.ts';
import { sleep } from './lab.ts';
import type { Kind } from './servers.ts';

/**
 * Fuzzes the stanza API of a running server: a session that is really in a room, requests that are nearly right about
 * it, and a chat service that receives whatever gets through.
 */
export interface StanzaResult {
  readonly inputs: number;
  readonly answers: Readonly<Record<string, number>>;
  /** The answers to single stanzas, by condition. */
  readonly stanzas: Readonly<Record<string, number>>;
  /**
   * The longest wait of another request, in milliseconds: when the server is idle (`baseline`), and during a seed. The
   * machine may be busy with other things; `own` is the processor time of the server during that wait, at most.
   */
  readonly stall: { readonly baseline: number; readonly wait: number; readonly own: number; readonly worst: string };
  /** Undefined: the server did not live so long. */
  readonly memory: { readonly before: Memory | undefined; readonly after: Memory | undefined };
  readonly violations: readonly Violation[];
}

/** No bad input may hold up other requests for longer. */
const MAX_STALL_MS = 100;
/** The same, if the server does nothing meanwhile. The limit is wide, because other load can be the reason. */
const MAX_WAIT_MS = 2000;
/** Each seed is sent up to this often, and its shortest stall counts: other load can only make a stall longer. */
const TURNS = 5;
/** The allowed growth of the server's memory. */
const MAX_GROWTH: Memory = { heapKb: 8192, rssMb: 64 };
/** The server remembers accepted requests for ten minutes, against replays. With more than this, it answers 503. */
const MAX_ACCEPTED = 9500;

const BAD_REQUESTS = [
  'the body is not (?:UTF-8|XML as XMPP has it)',
  'the body has too much markup',
  'the root must be <xmpp>',
  'timeout must be',
  'more than 1000 stanzas',
  'child \\d+ is not a stanza',
  'stanza \\d+ (?:needs an id|has the id)',
];
const DETAILS: Readonly<Record<number, RegExp>> = {
  400: new RegExp(`^(?:${BAD_REQUESTS.join('|')})`),
  401: /webhook-(?:id|timestamp|signature)/,
  413: /^the body has more than 1048576 bytes$/,
  415: /^the content type must be application\/xmpp\+xml$/,
};

/** The number of stanzas in a body, counted with another parser than the server's. */
function stanzasIn(body: Buffer): number {
  let found = 0;
  const parser = new Parser();
  parser.on('element', () => {
    found += 1;
  });
  parser.on('error', () => undefined);
  parser.write(body.toString().replace(/^(?:\ufeff)?<\?xml [^>]*>/, ''));
  return found;
}

const problemSchema = (): ((value: unknown) => boolean) =>
  new Ajv2020().compile(
    JSON.parse(readFileSync(new URL('../protocol/problem.schema.json', import.meta.url), 'utf8')) as object,
  );

const rightInput = (body: string | Buffer): Input => ({
  body: Buffer.from(body),
  signing: 'right',
  strange: ['', '', ''],
  type: 'application/xmpp+xml',
});
/** For violations that belong to no single input. */
const NO_INPUT = Buffer.alloc(0);

/** Sends inputs, and checks each answer against the contract. */
class StanzaFuzzer {
  readonly tally = new Tally();
  /** The answers to single stanzas, by condition. */
  readonly conditions: Record<string, number> = {};
  /** Requests that were accepted. */
  accepted = 0;
  readonly #testBed: StanzaTestBed;
  readonly #isProblem = problemSchema();

  constructor(testBed: StanzaTestBed) {
    this.#testBed = testBed;
  }

  /** Sends an input, and again if the server is busy. */
  async send(given: Input, name: string): Promise<void> {
    try {
      let reply = await this.#testBed.send(given);
      for (
        let turn = 0;
        turn < 20 && (reply.status === 503 || reply.status === 429) && reply.headers['retry-after'] !== undefined;
        turn += 1
      ) {
        this.tally.count(`${reply.status}, tried again`);
        await sleep(Number(reply.headers['retry-after']) * 1000);
        reply = await this.#testBed.send(given);
      }
      this.tally.count(String(reply.status));
      const wrong = this.#judge(given, reply);
      if (wrong !== undefined) this.tally.violate(name, wrong.slice(0, 500), given.body);
    } catch (error) {
      this.tally.count('no answer');
      this.tally.violate(name, String(error), given.body);
    }
  }

  /** Sends each seed until its stall is small, and returns the longest stalls. */
  async measureSeeds(progress: FuzzOptions['progress']): Promise<StanzaResult['stall']> {
    const stall = { baseline: (await this.#testBed.longestWait(() => sleep(5000))).wait, wait: 0, own: 0, worst: '' };
    for (const [name, body] of Object.entries(seeds(this.#testBed.world))) {
      progress?.(name);
      const given = rightInput(body);
      let [wait, own] = [Infinity, Infinity];
      for (let turn = 0; turn < TURNS && (own > MAX_STALL_MS / 4 || wait > MAX_WAIT_MS); turn += 1) {
        const cost = await this.#testBed.longestWait(() => this.send(given, name));
        [wait, own] = [Math.min(wait, cost.wait), Math.min(own, cost.own)];
      }
      progress?.(`${name}: ${wait.toFixed(0)} ms, ${own.toFixed(0)} ms its own`);
      stall.wait = Math.max(stall.wait, wait);
      if (own > stall.own) Object.assign(stall, { own, worst: name });
      if (own > MAX_STALL_MS)
        this.tally.violate(name, `held up the server for ${own.toFixed(0)} ms, ${TURNS} times`, given.body);
      if (wait > MAX_WAIT_MS)
        this.tally.violate(name, `made others wait for ${wait.toFixed(0)} ms, ${TURNS} times`, given.body);
    }
    return stall;
  }

  /** Sends what the contract does not have, which the server must refuse. */
  async sendStrangeRequests(): Promise<void> {
    for (const [name, request] of Object.entries(strangeRequests(this.#testBed.world))) {
      try {
        const { status, body } = await this.#testBed.post(request, false);
        this.tally.count(String(status));
        if (status < 400 || status > 499) this.tally.violate(name, `answered ${status}: ${body}`, request.body);
      } catch (error) {
        this.tally.count('no answer');
        this.tally.violate(name, String(error), request.body);
      }
    }
  }

  /** Sends each seed once. */
  async sendSeeds(progress: FuzzOptions['progress']): Promise<StanzaResult['stall']> {
    for (const [name, body] of Object.entries(seeds(this.#testBed.world))) {
      progress?.(name);
      await this.send(rightInput(body), name);
    }
    return { baseline: 0, wait: 0, own: 0, worst: '' };
  }

  /** The memory of the server may not have grown. */
  checkMemory(before: Memory, after: Memory): void {
    if (after.heapKb - before.heapKb > MAX_GROWTH.heapKb)
      this.tally.violate('all', `the memory in use grew from ${before.heapKb} to ${after.heapKb} kB`, NO_INPUT);
    if (after.rssMb - before.rssMb > MAX_GROWTH.rssMb)
      this.tally.violate('all', `the process grew from ${before.rssMb} to ${after.rssMb} MB`, NO_INPUT);
  }

  /** No stanza may have left the server since then. */
  checkTraffic(before: Traffic): void {
    const { muc, juliet } = this.#testBed;
    for (const { kind, to, user } of muc.asked.slice(before.asked))
      this.tally.violate('all', `the chat service was asked: ${kind} ${to} by ${user}`, NO_INPUT);
    for (const { stanza } of juliet.received.slice(before.received))
      this.tally.violate('all', `the client received ${stanza.toString()}`, NO_INPUT);
  }

  /** The server may have logged neither an error nor the secret. */
  async checkLog(): Promise<void> {
    const { home } = this.#testBed;
    const [log, errors] = [await home.log(), await home.errors()];
    if (errors.length > 0) this.tally.violate('all', `the server logged ${errors.slice(0, 3).join(' ')}`, NO_INPUT);
    if (log.includes(SECRET.toString('base64'))) this.tally.violate('all', 'the secret is in the log', NO_INPUT);
  }

  /** It is the same process, and has the same sessions. */
  async checkServer(before: ServerState): Promise<void> {
    const after = await stateOf(this.#testBed);
    if (after.pid !== before.pid) this.tally.violate('all', 'the server was started again', NO_INPUT);
    if (after.sessions !== before.sessions)
      this.tally.violate('all', `${before.sessions} sessions became ${after.sessions}`, NO_INPUT);
  }

  /** The same stanzas are accepted for the real join: the API was open, and the inputs were nearly right. */
  async checkRightStanzas(): Promise<void> {
    const { join } = this.#testBed;
    const pingReply = await this.#testBed.send(rightInput(requestBody([ping(join)], 5)));
    const noticeReply = await this.#testBed.send(rightInput(requestBody([notice(join, undefined)], 5)));
    if (readAnswers(pingReply.body).values().next().value?.kind !== 'result' || readAnswers(noticeReply.body).size > 0)
      this.tally.violate('all', `the right ones were refused: ${pingReply.body} ${noticeReply.body}`, NO_INPUT);
  }

  /** Returns what is wrong with an answer, or undefined. */
  #judge(given: Input, { status, headers, body }: Reply): string | undefined {
    const type = headers['content-type'];
    if (given.body.length === 0 && !this.#testBed.home.abilities.emptyRequests)
      return status === 400 ? undefined : `answered ${status} to nothing`;
    if (given.signing !== 'right' && status !== 401 && given.body.length <= 1_048_576)
      return `answered ${status} to what is not signed`;
    if (status !== 200) {
      const details = DETAILS[status];
      if (details === undefined) return `answered ${status}: ${body}`;
      const problem = JSON.parse(body) as { status: number; detail: string };
      if (type !== 'application/problem+json' || !this.#isProblem(problem) || problem.status !== status)
        return `not a problem document: ${body}`;
      return details.test(problem.detail) ? undefined : `the problem names no field: ${body}`;
    }
    this.accepted += 1;
    return type === 'application/xmpp+xml' ? this.#judgeAnswers(given, body) : `answered 200 with ${type}`;
  }

  #judgeAnswers(given: Input, body: string): string | undefined {
    const answers = [...readAnswers(body).values()];
    const sent = stanzasIn(given.body);
    if (answers.length !== sent) return `${sent} stanzas, ${answers.length} answers: ${body}`;
    for (const answer of answers) {
      if (answer.kind !== 'error') return `a stanza got through: ${body}`;
      if (answer.by !== this.#testBed.home.host) return `an error that the server did not make: ${body}`;
      if (!['policy-violation', 'conflict', 'recipient-unavailable'].includes(answer.condition))
        return `${answer.condition}: ${body}`;
      if (answer.condition === 'policy-violation' && (answer.text ?? '') === '') return `no reason is given: ${body}`;
      this.conditions[answer.condition] = (this.conditions[answer.condition] ?? 0) + 1;
    }
    return undefined;
  }
}

/** How much the chat service and the client have received. */
interface Traffic {
  readonly asked: number;
  readonly received: number;
}

/** What must be the same at the end. */
interface ServerState {
  readonly pid: number;
  readonly sessions: number;
}

async function stateOf({ home }: StanzaTestBed): Promise<ServerState> {
  return { pid: home.pid, sessions: (await home.connections()).length };
}

/**
 * @param kind of the server that is fuzzed
 * @param measured whether each seed's stall is measured, which takes a minute
 */
export async function fuzzStanzas(
  kind: Kind,
  options: FuzzOptions & { readonly measured: boolean },
): Promise<StanzaResult> {
  const testBed = await StanzaTestBed.open(kind);
  const { juliet, muc, world } = testBed;
  const fuzzer = new StanzaFuzzer(testBed);
  let stall: StanzaResult['stall'] = { baseline: 0, wait: 0, own: 0, worst: '' };
  let [before, after]: Memory[] = [];
  try {
    await sleep(500); // what the login causes has arrived
    const traffic = { asked: muc.asked.length, received: juliet.received.length };
    const server = await stateOf(testBed);
    await fuzzer.sendStrangeRequests();
    stall = await (options.measured ? fuzzer.measureSeeds(options.progress) : fuzzer.sendSeeds(options.progress));

    before = await testBed.memory();
    await fuzz(inputs(world), options, fuzzer.tally, AT_ONCE, async (given, name) => {
      await fuzzer.send(fuzzer.accepted < MAX_ACCEPTED ? given : { ...given, signing: 'other body' }, name);
    });
    after = await testBed.memory();

    await sleep(500); // what got through has arrived
    fuzzer.checkTraffic(traffic);
    fuzzer.checkMemory(before, after);
    await fuzzer.checkLog();
    await fuzzer.checkServer(server);
    await fuzzer.checkRightStanzas();
  } catch (error) {
    fuzzer.tally.violate('all', `the server has ended, or does not answer: ${String(error)}`, NO_INPUT);
  } finally {
    await testBed.close();
  }
  const { counts, violations } = fuzzer.tally;
  return {
    inputs: Object.entries(counts).reduce((sum, [name, count]) => sum + (name.includes('again') ? 0 : count), 0),
    answers: counts,
    stanzas: fuzzer.conditions,
    stall,
    memory: { before, after },
    violations,
  };
}
