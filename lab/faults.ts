import { randomBytes } from 'node:crypto';
import { WEBHOOK_TIME } from '../functions/names.ts';
import { DELAY, FaultTestBed } from './fault-test-bed.ts';
import { NOT_SHIFTED, shifted } from './faketime.ts';
import { sleep, until } from './lab.ts';
import type { Reported } from './scripted-rooms.ts';
import { random } from './random.ts';
import { type Interceptor, StubAnswer } from './recording-proxy.ts';
import type { User } from './user.ts';

/**
 * Every fault that users' notices survive, on real servers. Each is a function that causes the fault around one or more
 * losses, and counts the notices that clients received.
 */
export interface FaultResult {
  readonly fault: string;
  /** Events that the server has reported. */
  readonly events: number;
  /** Expected notices: one for each join that was lost, unless its user has left. */
  readonly expected: number;
  /** Expected notices that were not received. */
  readonly lost: number;
  /** Notices after the first for one join. */
  readonly doubled: number;
  /** Notices for joins that were not lost. */
  readonly wrong: number;
  /** The time to recover, counted from the end of the fault or from when the check was due, whichever is later. */
  readonly seconds: number;
}

/** The size and the duration of a fault. */
export interface Extent {
  /** Number of joins; half of them are lost. */
  readonly joins: number;
  /** How long a fault lasts, if it can last, in seconds. */
  readonly seconds: number;
  /** How often the runtime is killed. */
  readonly kills: number;
  /** The seed of everything random. */
  readonly seed: number;
}

/** For the end-to-end tests. */
export const SHORT_EXTENT = { joins: 12, seconds: 2, kills: 3 };
/** The endpoint is down for minutes, and faults outlast an invocation where they can. */
export const LONG_EXTENT = { joins: 60, seconds: 130, kills: 10 };

type FaultTest = (testBed: FaultTestBed, extent: Extent) => Promise<Omit<FaultResult, 'fault'>>;

const SESSIONS = 4;
/** A fault of at least this many seconds is long. */
const LONG = 30;
/** The longest time until everyone has been notified: the sender's longest back-off, and a busy machine. */
const RECOVERY_MS = 150_000;
const ENTER_MS = 3000;
/** DynamoDB requests that change something. */
const WRITES = /\.(UpdateItem|DeleteItem)$/;

/** The parts of an event that are used here. */
type Stored = Pick<Reported, 'type' | 'at' | 'room' | 'user'>;

interface Member {
  readonly user: User;
  readonly room: string;
  readonly nick: string;
  /** The service has dropped it. */
  lost: boolean;
  hasLeft: boolean;
}

/** Sessions in rooms, some of which are lost, and the notices that they receive. */
class Participants {
  readonly testBed: FaultTestBed;
  readonly members: Member[] = [];
  readonly #users: readonly User[];
  readonly #tag: string;
  /** The numbers of webhooks and log lines before these participants. */
  readonly #webhooks: number;
  readonly log: number;
  readonly #executions: number;

  private constructor(testBed: FaultTestBed, users: readonly User[], tag: string, executions: number) {
    this.testBed = testBed;
    this.#users = users;
    this.#tag = tag;
    this.#executions = executions;
    this.#webhooks = testBed.base.webhooks.requests.length;
    this.log = testBed.base.runtime.lines.length;
  }

  static async open(testBed: FaultTestBed): Promise<Participants> {
    const tag = randomBytes(4).toString('hex');
    const users = await Promise.all(
      Array.from({ length: SESSIONS }, (_, index) => testBed.base.user('juliet', `${tag}-${index}`)),
    );
    return new Participants(testBed, users, tag, await testBed.executions());
  }

  /** Adds joins, spread over the sessions. Returns when the rooms have confirmed them. */
  async join(count: number): Promise<void> {
    const first = this.members.length;
    const more = Array.from({ length: count }, (_, index): Member => {
      const user = this.#users[(first + index) % SESSIONS] as User;
      const room = this.testBed.base.muc().room(`${this.#tag}-${Math.floor((first + index) / SESSIONS)}`);
      return { user, room, nick: `nick-${first + index}`, lost: false, hasLeft: false };
    });
    this.members.push(...more);
    await Promise.all(
      [...Map.groupBy(more, ({ user }) => user).values()].map(async (own) => {
        for (const member of own) await enter(member);
      }),
    );
  }

  /** Waits until the functions have recorded every join. */
  async recorded(): Promise<void> {
    const missing = (known: readonly string[]): number =>
      this.members.filter(({ room, user }) => !known.includes(`${room}#${user.jid}`)).length;
    await until(
      'every join is recorded',
      () => missing(this.#stored().map(({ room, user }) => `${room}#${user}`)) === 0,
      RECOVERY_MS,
    );
  }

  /** The service drops every other member, and these must be notified. */
  lose(share = 2): void {
    const candidates = this.members.filter(({ lost, hasLeft }) => !lost && !hasLeft);
    candidates.forEach((member, index) => {
      if (index % share !== 0) return;
      member.lost = true;
      this.testBed.base.muc().dropOccupant(member.room, member.user.jid);
    });
  }

  /** A lost member leaves, so it must not be notified any more. */
  async leave(isMeant: (member: Member) => boolean = () => true): Promise<void> {
    const member = this.members.findLast((one) => one.lost && !one.hasLeft && isMeant(one));
    if (member === undefined) return;
    member.hasLeft = true;
    await member.user.leave(member.room, member.nick);
  }

  /** Waits until the functions have started a check, after so many lines of the log. */
  async checkStarted(lines: number): Promise<void> {
    await until(
      'the check is started',
      () => this.testBed.lines('webhook stored', lines).some((line) => Number(line['ChecksStarted']) > 0),
      RECOVERY_MS,
    );
  }

  expected(): readonly Member[] {
    return this.members.filter(({ lost, hasLeft }) => lost && !hasLeft);
  }

  /**
   * Waits for the notices, and for anything after them, and counts them. The sessions end.
   * @param over when the fault was over and the check was due, in milliseconds
   */
  async end(over: number): Promise<Omit<FaultResult, 'fault'>> {
    await until(
      'all are notified',
      () => this.expected().every((member) => noticeCount(member) > 0),
      RECOVERY_MS,
    ).catch(() => undefined); // the result counts the missing ones
    await this.#quiet();
    const expected = this.expected();
    const last = Math.max(over, ...expected.map((member) => noticesOf(member)[0]?.at ?? Infinity));
    const result = {
      events: this.#stored().length,
      expected: expected.length,
      lost: expected.filter((member) => noticeCount(member) === 0).length,
      doubled: expected.reduce((sum, member) => sum + Math.max(0, noticeCount(member) - 1), 0),
      wrong: this.members
        .filter((member) => !expected.includes(member))
        .reduce((sum, member) => sum + noticeCount(member), 0),
      seconds: (last - over) / 1000,
    };
    const known = new Set((await this.testBed.rows()).filter(({ state }) => state === 'joined').map(({ sk }) => sk));
    const unknown = this.members.filter(
      ({ room, user, lost, hasLeft }) => !lost && !hasLeft && !known.has(`${room}#${user.jid}`),
    );
    if (unknown.length > 0)
      throw new Error(`${unknown.length} users are in rooms that the functions have not recorded`);
    const back = this.members.filter(({ room, user, hasLeft }) => hasLeft && known.has(`${room}#${user.jid}`));
    if (back.length > 0)
      throw new Error(`${back.length} users have left rooms for which the functions still have a join`);
    if ((await this.testBed.executions('FAILED')) > 0) throw new Error('a check has failed for good');
    const checks = (await this.testBed.executions()) - this.#executions;
    const closes = (events: readonly Stored[]): number => events.filter(({ type }) => type === 's2s.closed').length;
    // a close whose webhook was not answered may have been replaced by a newer one in the sender's queue
    const [least, most] = [closes(this.#stored()), closes(this.#sent())];
    if (checks < least || checks > most)
      throw new Error(`${checks} checks were started for ${least} closes that were stored, and ${most} that were sent`);
    await this.disband();
    return result;
  }

  /** The sessions end. */
  async disband(): Promise<void> {
    await Promise.all(this.#users.map((user) => user.leaveServer()));
  }

  /** Waits until nothing is under way any more. */
  async #quiet(): Promise<void> {
    const { base } = this.testBed;
    for (const user of this.#users) await base.settle(user); // the sender's queue is empty
    await until('no check runs', async () => (await this.testBed.executions('RUNNING')) === 0, RECOVERY_MS);
    await Promise.all(this.#users.map((user) => base.settle(user)));
  }

  /** The events that the functions have stored since the start. */
  #stored(): readonly Stored[] {
    return this.#sent(({ status }) => status === 200);
  }

  /** The events that the server has sent since the start. */
  #sent(
    isMeant: (request: FaultTestBed['base']['webhooks']['requests'][number]) => boolean = () => true,
  ): readonly Stored[] {
    const requests = this.testBed.base.webhooks.requests.slice(this.#webhooks).filter(isMeant);
    const events = requests.flatMap(({ body }) => (JSON.parse(body.toString()) as { events: Stored[] }).events);
    return [...new Map(events.map((event) => [event.at, event])).values()];
  }
}

const noticesOf = ({ user, room, nick }: Member): ReturnType<User['notices']> =>
  user.notices().filter(({ stanza }) => stanza.attrs['from'] === `${room}/${nick}`);
const noticeCount = (member: Member): number => noticesOf(member).length;

/** Enters a room over a link that may be cut at any time. */
async function enter({ user, room, nick }: Member): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const since = Date.now();
    await user.enter(room, nick);
    const isIn = (): boolean =>
      user
        .presences(room, since)
        .some(({ attrs }) => attrs['type'] === undefined && String(attrs['from']).endsWith(`/${nick}`));
    try {
      await until(`${user.jid} is in ${room}`, isIn, ENTER_MS);
      return;
    } catch (error) {
      if (attempt === 5) throw error;
    }
  }
}

/** What a fault does at each step of a loss. */
interface FaultHooks {
  /** Before the second half of the joins and the close, to affect webhooks. */
  early?(participants: Participants): unknown;
  /** Directly before the close. */
  begin?(participants: Participants): unknown;
  /** Who may be the one that leaves. Default: every lost member. */
  readonly mayLeave?: (member: Member) => boolean;
  /** After the close. When it returns, the fault is over. */
  meanwhile(participants: Participants): unknown;
}

/** One loss: the service drops half of the joins, both streams are cut, and one lost user leaves before its notice. */
async function lossDuring(
  testBed: FaultTestBed,
  { joins }: Extent,
  hooks: FaultHooks,
): Promise<Omit<FaultResult, 'fault'>> {
  const { base } = testBed;
  const participants = await Participants.open(testBed);
  await participants.join(Math.ceil(joins / 2));
  await participants.recorded();
  await hooks.early?.(participants);
  await participants.join(Math.floor(joins / 2));
  if (hooks.early === undefined) await participants.recorded();
  participants.lose();
  await hooks.begin?.(participants);
  const cut = base.dropStreams();
  await participants.leave(hooks.mayLeave);
  await hooks.meanwhile(participants);
  return participants.end(Math.max(Date.now(), cut + DELAY * 1000));
}

/** The webhook endpoint fails, from before the last joins and the close until some time after the close. */
function webhookFault(
  interceptor: (extent: Extent) => Interceptor,
  verify?: (requests: FaultTestBed['base']['webhooks']['requests']) => void,
): FaultTest {
  return async (testBed, extent) => {
    const { webhooks } = testBed.base;
    let first = 0;
    return lossDuring(testBed, extent, {
      early: () => {
        first = webhooks.requests.length;
        webhooks.interceptor = interceptor(extent);
      },
      meanwhile: async () => {
        await sleep(extent.seconds * 1000);
        await until('a webhook was sent during the fault', () => webhooks.requests.length > first, RECOVERY_MS);
        verify?.(webhooks.requests.slice(first));
        webhooks.interceptor = {};
      },
    });
  };
}

const endpointDown: FaultTest = (testBed, extent) =>
  lossDuring(testBed, extent, {
    early: () => testBed.base.webhooks.down(),
    meanwhile: async () => {
      await sleep(extent.seconds * 1000);
      await testBed.base.webhooks.up();
    },
  });

const RETRY_AFTER = 2;
const endpointThrottles = webhookFault(
  () => ({ before: () => new StubAnswer(429, { 'retry-after': String(RETRY_AFTER) }) }),
  (requests) => {
    const gaps = requests.slice(1).map(({ at }, index) => at - (requests[index]?.at ?? 0));
    if (gaps.some((gap) => gap < RETRY_AFTER * 1000 - 100))
      throw new Error(`the sender was asked to wait ${RETRY_AFTER} s, and waited ${gaps.join(', ')} ms`);
  },
);

const hang = (): Promise<never> => new Promise(() => undefined);

/**
 * The first request does not reach the functions, and is never answered. If the fault is long, nor are the next ones.
 * The next batch is half as large.
 */
const endpointHangs: FaultTest = async (testBed, extent) => {
  const { webhooks } = testBed.base;
  let hanging = 0;
  let first = 0;
  return lossDuring(testBed, extent, {
    early: () => {
      first = webhooks.requests.length;
      webhooks.interceptor = { before: () => ((hanging += 1), hang()) };
    },
    meanwhile: async () => {
      await until('a webhook hangs', () => hanging > 0, RECOVERY_MS);
      await sleep(extent.seconds * 1000);
      webhooks.interceptor = {};
      await until('the sender gives up', () => webhooks.requests.length > first + 1, RECOVERY_MS);
      const [hung, next] = webhooks.requests
        .slice(first)
        .map(({ body }) => (JSON.parse(body.toString()) as { events: unknown[] }).events.length);
      if (next !== Math.max(1, Math.floor(Number(hung) / 2)))
        throw new Error(`after a batch of ${hung} that was not answered, the next one has ${next}`);
    },
  });
};

/** The sender has given up by then, and the functions have stored the events. */
const ANSWER_AFTER_MS = (WEBHOOK_TIME.senderWaitsSeconds + 1) * 1000;
const endpointAnswersLate: FaultTest = async (testBed, extent) => {
  const { webhooks } = testBed.base;
  let late = 0;
  let first = 0;
  return lossDuring(testBed, extent, {
    early: () => {
      first = webhooks.requests.length;
      webhooks.interceptor = { after: () => ((late += 1), sleep(ANSWER_AFTER_MS)) };
    },
    meanwhile: async () => {
      await until('an answer is late', () => late > 0, RECOVERY_MS);
      await sleep(extent.seconds * 1000);
      webhooks.interceptor = {};
      await until('the sender gives up', () => webhooks.requests.length > first + late, RECOVERY_MS);
    },
  });
};

/** A request is delayed until its retry, and the events after it, have been stored. */
const endpointHeldUp: FaultTest = async (testBed, extent) => {
  const { webhooks } = testBed.base;
  const arrival = Promise.withResolvers<undefined>();
  let first = 0;
  let hasHeld = false;
  const isStored = (type: Stored['type']): boolean =>
    webhooks.requests.slice(first + 1).some(({ status, body }) => status === 200 && body.includes(type));
  return lossDuring(testBed, extent, {
    early: () => {
      webhooks.interceptor = {
        before: (body) => {
          if (hasHeld || !body.includes('muc.joined')) return undefined; // a heartbeat, for example
          hasHeld = true;
          first = webhooks.requests.length - 1;
          return arrival.promise;
        },
      };
    },
    begin: () => until('the joins are sent', () => hasHeld),
    // of a join that is still in the sender's queue, neither the join nor the leave would ever be sent
    mayLeave: ({ room, user }) =>
      (JSON.parse(webhooks.requests[first]?.body.toString() ?? '{"events":[]}') as { events: Stored[] }).events.some(
        (event) => event.room === room && event.user === user.jid,
      ),
    meanwhile: async () => {
      await until('join and leave are stored', () => isStored('muc.joined') && isStored('muc.left'), RECOVERY_MS);
      await sleep(extent.seconds * 1000);
      arrival.resolve(undefined);
      await until('the first request has arrived', () => webhooks.requests[first]?.status === 200, RECOVERY_MS);
      webhooks.interceptor = {};
    },
  });
};

/** The server's API fails, until several invocations of the check have given up. */
function apiFault(
  begin: (testBed: FaultTestBed, extent: Extent) => unknown,
  end: (testBed: FaultTestBed) => unknown,
): FaultTest {
  return async (testBed, extent) => {
    await testBed.use('brief');
    const result = await lossDuring(testBed, extent, {
      begin: () => begin(testBed, extent),
      meanwhile: async (participants) => {
        await until(
          'invocations have given up',
          () => testBed.lines('check interrupted', participants.log).length >= 2,
          RECOVERY_MS,
        );
        await sleep(extent.seconds * 1000);
        await end(testBed);
      },
    });
    await testBed.use('brisk');
    return result;
  };
}

const apiDown = apiFault(
  (testBed) => testBed.base.stanzas.down(),
  (testBed) => testBed.base.stanzas.up(),
);
const behave = ({ base }: FaultTestBed): void => {
  base.stanzas.interceptor = {};
};
const apiUnavailable = apiFault(({ base }) => {
  base.stanzas.interceptor = { before: () => new StubAnswer(503, { 'retry-after': '1' }) };
}, behave);

/** Every answer of the API is slow. If the fault is long, it takes longer than a function waits. */
const apiSlow: FaultTest = (testBed, extent) => {
  const slow = (milliseconds: number) => (): void => {
    testBed.base.stanzas.interceptor = { after: () => sleep(milliseconds) };
  };
  if (extent.seconds >= LONG) return apiFault(slow(BEYOND_TIMEOUT_MS), behave)(testBed, extent);
  return lossDuring(testBed, extent, { begin: slow(extent.seconds * 500), meanwhile: () => undefined }).finally(() =>
    behave(testBed),
  );
};
/** The function waits for five seconds, the time-out for the rooms, and fifteen seconds more. */
const BEYOND_TIMEOUT_MS = 22_000;

/** Holds the nth of some requests at a proxy, kills the function that has sent it, and drops the request. */
function functionDies(
  endpoint: 'stanzas' | 'aws',
  when: (body: string, target: string) => boolean,
  nth = 2,
): FaultTest {
  return (testBed, extent) => {
    const proxy = endpoint === 'aws' ? testBed.aws : testBed.base.stanzas;
    let count = 0;
    const died = Promise.withResolvers<undefined>();
    return lossDuring(testBed, extent, {
      begin: () => {
        proxy.interceptor.before = async (body, headers) => {
          if (!when(body, String(headers['x-amz-target'])) || (count += 1) !== nth) return;
          await testBed.killCheckFunction().then(() => died.resolve(undefined), died.reject);
          throw new Error('the function was killed');
        };
      },
      meanwhile: async () => {
        await died.promise;
        proxy.interceptor = {};
      },
    });
  };
}

/** The DynamoDB API's errors. */
const dynamoError = (status: number, name: string): StubAnswer =>
  new StubAnswer(
    status,
    { 'content-type': 'application/x-amz-json-1.0' },
    JSON.stringify({ __type: `com.amazonaws.dynamodb.v20120810#${name}`, message: 'injected' }),
  );

/** DynamoDB refuses some requests, around the close and when the check is due. */
function dynamoFault(interceptor: (chance: () => number) => Interceptor): FaultTest {
  return (testBed, extent) => {
    const chance = random(extent.seed);
    return lossDuring(testBed, extent, {
      early: () => {
        testBed.aws.interceptor = interceptor(chance);
      },
      meanwhile: async () => {
        await sleep((DELAY + extent.seconds) * 1000);
        testBed.aws.interceptor = {};
      },
    });
  };
}

/** The webhook function logs this when it asks the sender to repeat a request. */
const NOT_STORED = 'webhook not stored; the sender is asked to send it again';
const isDynamo = (target: unknown): boolean => String(target).startsWith('DynamoDB');
const dynamoThrottles = dynamoFault((chance) => ({
  before: (_body, headers) =>
    isDynamo(headers['x-amz-target']) && chance() < 0.6
      ? dynamoError(400, 'ProvisionedThroughputExceededException')
      : undefined,
}));
/** A third of the writes fail, and the answers to another third are lost. */
const dynamoFails = dynamoFault((chance) => ({
  before: (_body, headers) =>
    WRITES.test(String(headers['x-amz-target'])) && chance() < 0.33
      ? dynamoError(500, 'InternalServerError')
      : undefined,
  after: (_body, _answer, headers) => {
    if (WRITES.test(String(headers['x-amz-target'])) && chance() < 0.5) throw new Error('the answer is lost');
  },
}));

/** Requests to AWS that only a check makes. */
const ONLY_CHECKS = /^DynamoDB_.*\.(GetItem|Query|DeleteItem)$/;

/**
 * AWS accepts connections and requests, and never answers: first those of a webhook, until its function gives up, then
 * those of the check. If the fault is long, both last for minutes.
 */
const awsHangs: FaultTest = (testBed, extent) =>
  lossDuring(testBed, extent, {
    early: () => {
      testBed.aws.interceptor = { before: hang };
    },
    begin: async (participants) => {
      await until('the webhook is refused', () => testBed.lines(NOT_STORED, participants.log).length > 0, RECOVERY_MS);
      await sleep(extent.seconds * 1000);
      testBed.aws.interceptor = {
        before: (_body, headers) => (ONLY_CHECKS.test(String(headers['x-amz-target'])) ? hang() : undefined),
      };
    },
    meanwhile: async (participants) => {
      await until(
        'the check has given up',
        () => testBed.lines('check interrupted', participants.log).length > 0,
        RECOVERY_MS,
      );
      await sleep(extent.seconds * 1000);
      testBed.aws.interceptor = {};
    },
  });

const isStart = (target: unknown): boolean => String(target) === 'AWSStepFunctions.StartExecution';

/** StartExecution fails, until the SDK has given up and the sender has been asked to send the webhook again. */
function startFault(interceptor: () => Interceptor): FaultTest {
  return (testBed, extent) =>
    lossDuring(testBed, extent, {
      begin: () => {
        testBed.aws.interceptor = interceptor();
      },
      meanwhile: async (participants) => {
        await until(
          'the webhook is refused',
          () => testBed.lines(NOT_STORED, participants.log).length > 0,
          RECOVERY_MS,
        );
        if (extent.seconds >= LONG) await sleep(extent.seconds * 1000);
        testBed.aws.interceptor = {};
      },
    });
}

const startThrottles = startFault(() => ({
  before: (_body, headers) =>
    isStart(headers['x-amz-target'])
      ? new StubAnswer(
          400,
          { 'content-type': 'application/x-amz-json-1.0' },
          JSON.stringify({ __type: 'ThrottlingException', message: 'Rate exceeded' }),
        )
      : undefined,
}));
const startAnswerLost = startFault(() => ({
  after: (_body, _answer, headers) => {
    if (isStart(headers['x-amz-target'])) throw new Error('the answer is lost');
  },
}));

/** The runtime is killed at random times, while joins, closes and checks continue. */
const runtimeKilled: FaultTest = async (testBed, { joins, kills, seed }) => {
  const { base } = testBed;
  const chance = random(seed);
  const participants = await Participants.open(testBed);
  const killing = { isOver: false };
  const killer = (async (): Promise<void> => {
    const moments: number[] = [];
    for (let kill = 0; kill < kills; kill += 1) {
      const moment = Math.round(chance() * 1500);
      moments.push(moment);
      await sleep(moment);
      await base.runtime.restart();
    }
    process.stderr.write(`the runtime was killed ${moments.join(', ')} ms after each start (seed ${seed})\n`);
  })().finally(() => {
    killing.isOver = true;
  });
  let cut = Date.now();
  do {
    await participants.join(Math.ceil(joins / 3));
    participants.lose();
    cut = base.dropStreams();
    await participants.leave();
    await sleep(chance() * 1000);
  } while (!killing.isOver);
  await killer;
  return participants.end(Math.max(Date.now(), cut + DELAY * 1000));
};

/** The users' server is killed while a check waits, so that all sessions have ended. */
const prosodyKilled: FaultTest = async (testBed, { joins, seconds }) => {
  const { base } = testBed;
  const wait = Math.max(5, seconds);
  await testBed.set({ ping_muc_delay: wait });
  const participants = await Participants.open(testBed);
  await participants.join(joins);
  await participants.recorded();
  participants.lose();
  const lines = base.runtime.lines.length;
  const cut = base.dropStreams();
  await participants.checkStarted(lines);
  await base.home.kill();
  await base.home.start();
  // one user logs in again with the same full JID, and is in no room
  const [first] = participants.members;
  const again = await base.user('juliet', first?.user.jid.split('/')[1]);
  const over = Math.max(Date.now(), cut + wait * 1000);
  const own = new Set(participants.members.map(({ room, user }) => `${room}#${user.jid}`));
  const left = async (): Promise<number> => (await testBed.rows()).filter(({ sk }) => own.has(sk)).length;
  await until('the rows of the ended sessions are deleted', async () => (await left()) === 0, RECOVERY_MS);
  const recovery = (Date.now() - over) / 1000;
  await base.settle(again);
  const rows = await testBed.rows();
  if (rows.some(({ expires }) => !(expires > Date.now() / 1000 && expires < Date.now() / 1000 + 10 * 86_400)))
    throw new Error('a row never expires');
  const wrong = [...participants.members, { ...(first as Member), user: again }].reduce(
    (sum, member) => sum + noticeCount(member),
    0,
  );
  await again.leaveServer();
  await testBed.set({});
  return { events: participants.members.length + 1, expected: 0, lost: 0, doubled: 0, wrong, seconds: recovery };
};

/** The module is reloaded, and its settings change, while events are queued. */
const moduleReloaded: FaultTest = async (testBed, extent) => {
  const { base } = testBed;
  const result = await lossDuring(testBed, extent, {
    early: () => base.webhooks.down(),
    meanwhile: async () => {
      await testBed.set({ ping_muc_timeout: 6 });
      await base.home.reloadModule();
      await base.webhooks.up();
    },
  });
  await testBed.set({});
  return result;
};

/** The functions' clock differs by some seconds, which is tolerated; nobody is notified before the delay is over. */
function clocksApart(seconds: number): FaultTest {
  return async (testBed, extent) => {
    const { base } = testBed;
    await base.runtime.restart(shifted(seconds));
    let cut = 0;
    let participants: Participants | undefined;
    const result = await lossDuring(testBed, extent, {
      begin: () => {
        cut = Date.now();
      },
      meanwhile: (it) => {
        participants = it;
      },
    });
    const early =
      participants?.expected().filter((member) => (noticesOf(member)[0]?.at ?? cut) < cut + DELAY * 1000) ?? [];
    if (early.length > 0) throw new Error(`${early.length} notices came before the delay was over`);
    await base.runtime.restart(NOT_SHIFTED);
    return result;
  };
}

/**
 * The functions' clock is ten minutes ahead: both endpoints refuse, with a reason. When it is right, nothing is lost.
 */
const clocksFarApart: FaultTest = async (testBed, { joins, seconds }) => {
  const { base } = testBed;
  const participants = await Participants.open(testBed);
  await participants.join(Math.ceil(joins / 2));
  await participants.recorded();
  participants.lose();
  const lines = base.runtime.lines.length;
  base.dropStreams();
  await participants.checkStarted(lines);
  await base.runtime.restart(shifted(600));
  // the check begins at once, by a clock that is ahead
  const refusal = await until('the server refuses', () => testBed.lines('check interrupted', lines)[0], RECOVERY_MS);
  if (!/ahead of this server's clock/.test(String(refusal['detail'])))
    throw new Error(`the server's refusal does not name the clock: ${String(refusal['detail'])}`);
  await participants.join(Math.floor(joins / 2));
  participants.lose();
  const cut = base.dropStreams();
  const ours = await until('the functions refuse', () => testBed.lines('webhook refused', lines)[0], RECOVERY_MS);
  if (!/behind this clock/.test(String(ours['detail'])))
    throw new Error(`the functions' refusal does not name the clock: ${String(ours['detail'])}`);
  await until('the log tells the operator', async () => /refuses our signature.*clock/.test(await base.home.log()));
  if (seconds >= LONG) await sleep(seconds * 1000);
  await base.runtime.restart(NOT_SHIFTED);
  return participants.end(Math.max(Date.now(), cut + DELAY * 1000));
};

/** Half of the rows are deleted by hand; the refresh restores them within one interval. */
const REFRESH = 2;
const tableHalved: FaultTest = async (testBed, { joins }) => {
  const { base } = testBed;
  await testBed.set({ ping_muc_refresh: REFRESH });
  const participants = await Participants.open(testBed);
  await participants.join(joins);
  await participants.recorded();
  const own = async (): Promise<readonly Awaited<ReturnType<FaultTestBed['rows']>>[number][]> => {
    const keys = new Set(participants.members.map(({ room, user }) => `${room}#${user.jid}`));
    return (await testBed.rows()).filter(({ sk, state }) => state === 'joined' && keys.has(sk));
  };
  const rows = await own();
  for (const row of rows.filter((_, index) => index % 2 === 0)) await testBed.deleteRow(row);
  const deleted = Date.now();
  await until('all rows are restored', async () => (await own()).length === joins, RECOVERY_MS);
  const restoredAfter = (Date.now() - deleted) / 1000;
  if (restoredAfter > REFRESH + 3)
    throw new Error(`the rows were restored after ${restoredAfter} s, the interval is ${REFRESH} s`);
  participants.lose();
  const cut = base.dropStreams();
  const result = await participants.end(cut + DELAY * 1000);
  await testBed.set({});
  return { ...result, seconds: restoredAfter };
};

/** Both sides change to a new secret, one after the other, while users join and streams close. */
const secretRotated: FaultTest = async (testBed, { joins, seconds }) => {
  const { base, aws } = testBed;
  const old = base.runtime.secret;
  const fresh = `whsec_${randomBytes(32).toString('base64')}`;
  /** Sets what Secrets Manager returns. */
  const store = (current: string, previous: string): void => {
    const answer = new StubAnswer(
      200,
      { 'content-type': 'application/x-amz-json-1.1' },
      JSON.stringify({ SecretString: JSON.stringify({ current, previous }) }),
    );
    aws.interceptor = {
      before: (_body, headers) => (headers['x-amz-target'] === 'secretsmanager.GetSecretValue' ? answer : undefined),
    };
  };
  const participants = await Participants.open(testBed);
  const rotation = { isOver: false };
  const load = (async (): Promise<void> => {
    for (let turn = 0; !rotation.isOver || participants.members.length < joins; turn += 1) {
      await participants.join(2);
      if (turn % 10 === 9) base.dropStreams();
      await sleep(100);
    }
  })();
  const rotate = async (from: string, to: string): Promise<void> => {
    await sleep(500);
    store(to, from);
    await testBed.set({ ping_muc_secret: [to, from] });
    await sleep(seconds * 1000);
    await testBed.set({ ping_muc_secret: to });
    await sleep(1000);
    store(to, '');
    await sleep(1000);
  };
  await rotate(old, fresh).finally(() => {
    rotation.isOver = true;
  });
  await load;
  const over = Date.now();
  await participants.recorded();
  participants.lose();
  const cut = base.dropStreams();
  const result = await participants.end(Math.max(over, cut + DELAY * 1000));
  // restore the secret, so that the next fault can use the test bed
  aws.interceptor = {};
  await base.runtime.restart();
  await testBed.set({});
  return result;
};

/** Every fault by name. */
export const FAULTS: Readonly<Record<string, FaultTest>> = {
  'webhooks: endpoint down': endpointDown,
  'webhooks: answers 500': webhookFault(() => ({ before: () => new StubAnswer(500) })),
  'webhooks: answers 429 with Retry-After': endpointThrottles,
  'webhooks: connection reset': webhookFault(() => ({
    before: () => {
      throw new Error('reset');
    },
  })),
  'webhooks: hangs': endpointHangs,
  'webhooks: answers after the sender gave up': endpointAnswersLate,
  'webhooks: a request arrives after its retry': endpointHeldUp,
  'stanza API: down when the check is due': apiDown,
  'stanza API: answers 503': apiUnavailable,
  'stanza API: slow': apiSlow,
  'check function dies before the pings': functionDies('stanzas', (body) => body.includes('<ping ')),
  'check function dies between pings and notices': functionDies(
    'stanzas',
    (body) => body.split('<presence ').length > 2,
    1,
  ), // there may be only one such request
  'check function dies between notice and delete': functionDies('aws', (_body, target) =>
    target.endsWith('.DeleteItem'),
  ),
  'DynamoDB throttles': dynamoThrottles,
  'DynamoDB fails some writes': dynamoFails,
  'AWS accepts and never answers': awsHangs,
  'StartExecution throttles': startThrottles,
  'StartExecution: the answer is lost': startAnswerLost,
  'runtime killed at random moments': runtimeKilled,
  'Prosody killed while a check waits': prosodyKilled,
  'module reloaded, settings changed': moduleReloaded,
  'clocks two minutes apart': clocksApart(120),
  'clocks two minutes apart, the other way': clocksApart(-120),
  'clocks ten minutes apart': clocksFarApart,
  'half of the table deleted': tableHalved,
  'secret rotated under load': secretRotated,
};

/** Test beds, each of which runs one fault at a time. */
export class TestBedPool {
  readonly #free: FaultTestBed[] = [];
  readonly #waiting: (() => void)[] = [];
  #mayOpen: number;

  constructor(size: number) {
    this.#mayOpen = size;
  }

  /** Runs a fault as soon as a test bed is free. */
  async run(fault: string, extent: Extent): Promise<FaultResult> {
    const run = FAULTS[fault];
    if (run === undefined) throw new Error(`there is no fault of this name: ${fault}`);
    const testBed = await this.#take();
    try {
      const result = { fault, ...(await run(testBed, extent)) };
      this.#free.push(testBed);
      return result;
    } catch (error) {
      await testBed.close(); // its state is unknown
      this.#mayOpen += 1;
      throw error;
    } finally {
      this.#waiting.shift()?.();
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#free.map((testBed) => testBed.close()));
  }

  async #take(): Promise<FaultTestBed> {
    for (;;) {
      const free = this.#free.pop();
      if (free !== undefined) return free;
      if (this.#mayOpen > 0) {
        this.#mayOpen -= 1;
        return FaultTestBed.open();
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }
}
