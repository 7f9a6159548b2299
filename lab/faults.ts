import { randomBytes } from 'node:crypto';
import { WEBHOOK_TIME } from '../functions/names.ts';
import { DELAY, FaultTestBed } from './fault-test-bed.ts';
import { sleep, until } from './lab.ts';
import type { Reported } from './scripted-rooms.ts';
import { type Interceptor, StubAnswer } from './recording-proxy.ts';
import type { User } from './user.ts';

/**
 * Every fault that users' notices survive, played on real servers. Each is a function that makes the fault happen around one
 * loss or several, and counts what the clients were told.
 */
export interface FaultResult {
  readonly fault: string;
  /** Events that the server has reported. */
  readonly events: number;
  /** Notices that are due: one for each join that was lost, and not left since. */
  readonly expected: number;
  /** Notices that did not come. */
  readonly lost: number;
  /** Notices beyond the first for one join. */
  readonly doubled: number;
  /** Notices for joins that were not lost. */
  readonly wrong: number;
  /** From the end of the fault, or from when the check was due, whichever came later, until all was well. */
  readonly seconds: number;
}

/** How much of a fault is played. */
export interface Extent {
  /** Joins of a loss; half of them are lost. */
  readonly joins: number;
  /** How long a fault lasts that can last, in seconds. */
  readonly seconds: number;
  /** How often the runtime is killed. */
  readonly kills: number;
  /** Of all that is left to chance. */
  readonly seed: number;
}

/** In the ordinary run. */
export const SHORT_EXTENT = { joins: 12, seconds: 2, kills: 3 };
/** The endpoint is away for minutes, and whatever can outlast a function's lifetime does. */
export const LONG_EXTENT = { joins: 60, seconds: 130, kills: 10 };

type FaultTest = (testBed: FaultTestBed, extent: Extent) => Promise<Omit<FaultResult, 'fault'>>;

const SESSIONS = 4;
/** Seconds from which on a fault counts as long. */
const LONG = 30;
/** What may pass until everyone has been told: the sender's longest back-off, and a busy machine. */
const RECOVERY_MS = 150_000;
const ENTER_MS = 3000;
/** Asks of DynamoDB that change something. */
const WRITES = /\.(UpdateItem|DeleteItem)$/;

/** An event, as far as it matters here. */
type Stored = Pick<Reported, 'type' | 'at' | 'room' | 'user'>;

interface Member {
  readonly user: User;
  readonly room: string;
  readonly nick: string;
  /** The service has forgotten it. */
  lost: boolean;
  hasLeft: boolean;
}

/** Sessions in rooms, of which some are lost: what is done to them, and what they are told. */
class Participants {
  readonly testBed: FaultTestBed;
  readonly members: Member[] = [];
  readonly #users: readonly User[];
  readonly #tag: string;
  /** Webhooks and log lines that were there before. */
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

  /** So many more joins, spread over the sessions. Returns when the rooms have confirmed them. */
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

  /** Waits until the functions know of every join. */
  async recorded(): Promise<void> {
    const missing = (known: readonly string[]): number =>
      this.members.filter(({ room, user }) => !known.includes(`${room}#${user.jid}`)).length;
    await until(
      'every join is recorded',
      () => missing(this.#stored().map(({ room, user }) => `${room}#${user}`)) === 0,
      RECOVERY_MS,
    );
  }

  /** The service forgets every other member whom it still knows, and everyone of them is to be told. */
  lose(share = 2): void {
    const candidates = this.members.filter(({ lost, hasLeft }) => !lost && !hasLeft);
    candidates.forEach((member, index) => {
      if (index % share !== 0) return;
      member.lost = true;
      this.testBed.base.muc().dropOccupant(member.room, member.user.jid);
    });
  }

  /** A lost member leaves: it is not to be told any more. */
  async leave(): Promise<void> {
    const member = this.members.findLast(({ lost, hasLeft }) => lost && !hasLeft);
    if (member === undefined) return;
    member.hasLeft = true;
    await member.user.leave(member.room, member.nick);
  }

  /** Waits until the functions have started the check of a close since a moment. */
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
   * Waits for the notices, and for anything that might come after them, and counts. The sessions end.
   * @param over when the fault was over and the check due, in milliseconds
   */
  async end(over: number): Promise<Omit<FaultResult, 'fault'>> {
    await until('all are told', () => this.expected().every((member) => noticeCount(member) > 0), RECOVERY_MS).catch(
      () => undefined,
    ); // it is counted
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
    if (unknown.length > 0) throw new Error(`${unknown.length} users are in rooms of which the functions do not know`);
    const back = this.members.filter(({ room, user, hasLeft }) => hasLeft && known.has(`${room}#${user.jid}`));
    if (back.length > 0) throw new Error(`${back.length} users have left rooms in which the functions believe them`);
    if ((await this.testBed.executions('FAILED')) > 0) throw new Error('a check has failed for good');
    const checks = (await this.testBed.executions()) - this.#executions;
    const closes = (events: readonly Stored[]): number => events.filter(({ type }) => type === 's2s.closed').length;
    // one that was started, and not answered for, may have been replaced by a newer one in the sender's queue
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

  /** All that was under way has come. */
  async #quiet(): Promise<void> {
    const { base } = this.testBed;
    for (const user of this.#users) await base.settle(user); // the sender's queue is behind us
    await until('no check runs', async () => (await this.testBed.executions('RUNNING')) === 0, RECOVERY_MS);
    await Promise.all(this.#users.map((user) => base.settle(user)));
  }

  /** The events that the functions have stored since the beginning. */
  #stored(): readonly Stored[] {
    return this.#sent(({ status }) => status === 200);
  }

  /** The events that the server has sent since the beginning. */
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

/** Enters a room over a link that may be cut meanwhile. */
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

/** What a fault does at the points of one loss. */
interface FaultHooks {
  /** Before the second half of the joins and the close: what comes between the server and the functions. */
  early?(participants: Participants): unknown;
  /** Right before the close. */
  begin?(participants: Participants): unknown;
  /** After the close; when it returns, the fault is over. */
  meanwhile(participants: Participants): unknown;
}

/** One loss: joins, half of which their service forgets, and both streams cut; one of the lost leaves before it is told. */
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
  await participants.leave();
  await hooks.meanwhile(participants);
  return participants.end(Math.max(Date.now(), cut + DELAY * 1000));
}

/** The webhook endpoint misbehaves, from before the last joins and the close until some time after it. */
function webhooksMeet(
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
        await until('the fault was met', () => webhooks.requests.length > first, RECOVERY_MS);
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
const endpointThrottles = webhooksMeet(
  () => ({ before: () => new StubAnswer(429, { 'retry-after': String(RETRY_AFTER) }) }),
  (requests) => {
    const gaps = requests.slice(1).map(({ at }, index) => at - (requests[index]?.at ?? 0));
    if (gaps.some((gap) => gap < RETRY_AFTER * 1000 - 100))
      throw new Error(`the sender was asked for ${RETRY_AFTER} s, and waited ${gaps.join(', ')} ms`);
  },
);

const hang = (): Promise<never> => new Promise(() => undefined);

/**
 * The first request is never answered; it does not reach the functions. Where the fault is long, the next ones are not, either.
 * What follows it is half as large.
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
        throw new Error(`after a batch of ${hung} that was not answered comes one of ${next}`);
    },
  });
};

/** When the sender has given up; by then the functions have stored the events. */
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

/** A request is held up on its way, for so long that what was sent in its place, and what came after it, is stored before it. */
const endpointHeldUp: FaultTest = async (testBed, extent) => {
  const { webhooks } = testBed.base;
  const arrival = Promise.withResolvers<undefined>();
  let first = 0;
  let hasHeld = false;
  const isStored = (type: Stored['type']): boolean =>
    webhooks.requests.slice(first + 1).some(({ status, body }) => status === 200 && body.includes(type));
  return lossDuring(testBed, extent, {
    early: () => {
      first = webhooks.requests.length;
      webhooks.interceptor = {
        before: () => {
          if (hasHeld) return undefined;
          hasHeld = true;
          return arrival.promise;
        },
      };
    },
    begin: () => until('the joins are on their way', () => hasHeld),
    meanwhile: async () => {
      await until('join and leave are stored', () => isStored('muc.joined') && isStored('muc.left'), RECOVERY_MS);
      await sleep(extent.seconds * 1000);
      arrival.resolve(undefined);
      await until('the first request has arrived', () => webhooks.requests[first]?.status === 200, RECOVERY_MS);
      webhooks.interceptor = {};
    },
  });
};

/** What a check meets at the server's API, until several of its invocations have given up. */
function apiMeets(
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

const apiDown = apiMeets(
  (testBed) => testBed.base.stanzas.down(),
  (testBed) => testBed.base.stanzas.up(),
);
const behave = ({ base }: FaultTestBed): void => {
  base.stanzas.interceptor = {};
};
const apiUnavailable = apiMeets(({ base }) => {
  base.stanzas.interceptor = { before: () => new StubAnswer(503, { 'retry-after': '1' }) };
}, behave);

/** Every answer of the API takes its time. Where the fault is long, it takes longer than a function waits. */
const apiSlow: FaultTest = (testBed, extent) => {
  const slow = (milliseconds: number) => (): void => {
    testBed.base.stanzas.interceptor = { after: () => sleep(milliseconds) };
  };
  if (extent.seconds >= LONG) return apiMeets(slow(BEYOND_PATIENCE_MS), behave)(testBed, extent);
  return lossDuring(testBed, extent, { begin: slow(extent.seconds * 500), meanwhile: () => undefined }).finally(() =>
    behave(testBed),
  );
};
/** The function gives an answer five seconds, for which the server waits for rooms, and fifteen of grace. */
const BEYOND_PATIENCE_MS = 22_000;

/** Holds the second, or the nth, of some requests that pass a tap, kills the function that asks, and drops the request. */
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
          throw new Error('who asked is dead');
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

/** DynamoDB takes only some of what it is asked, around the close and while the check is due. */
function dynamoMeets(interceptor: (chance: () => number) => Interceptor): FaultTest {
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

/** What the webhook function logs when it asks for a request again. */
const NOT_STORED = 'webhook not stored; the sender is asked to send it again';
const isDynamo = (target: unknown): boolean => String(target).startsWith('DynamoDB');
const dynamoThrottles = dynamoMeets((chance) => ({
  before: (_body, headers) =>
    isDynamo(headers['x-amz-target']) && chance() < 0.6
      ? dynamoError(400, 'ProvisionedThroughputExceededException')
      : undefined,
}));
/** A third of the writes fail, and of another third the answer is lost. */
const dynamoFails = dynamoMeets((chance) => ({
  before: (_body, headers) =>
    WRITES.test(String(headers['x-amz-target'])) && chance() < 0.33
      ? dynamoError(500, 'InternalServerError')
      : undefined,
  after: (_body, _answer, headers) => {
    if (WRITES.test(String(headers['x-amz-target'])) && chance() < 0.5) throw new Error('the answer is lost');
  },
}));

/** What a check asks of AWS, and a webhook does not. */
const ONLY_CHECKS = /^DynamoDB_.*\.(GetItem|Query|DeleteItem)$/;

/**
 * AWS takes requests and connections, and never answers: first a webhook's, until the function has given up in time,
 * then those of the check. Where the fault is long, neither is answered for minutes.
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

/** Until the SDK has given up, and the sender has been asked to send again. */
function startMeets(interceptor: () => Interceptor): FaultTest {
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

const startThrottles = startMeets(() => ({
  before: (_body, headers) =>
    isStart(headers['x-amz-target'])
      ? new StubAnswer(
          400,
          { 'content-type': 'application/x-amz-json-1.0' },
          JSON.stringify({ __type: 'ThrottlingException', message: 'Rate exceeded' }),
        )
      : undefined,
}));
const startAnswerLost = startMeets(() => ({
  after: (_body, _answer, headers) => {
    if (isStart(headers['x-amz-target'])) throw new Error('the answer is lost');
  },
}));

/** The runtime is killed at random moments, while joins, closes and checks go on. */
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

/** The users' own server dies while a check waits: who was in a room has no session any more. */
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
  // one of them comes back under the same address, and is in no room
  const [first] = participants.members;
  const again = await base.user('juliet', first?.user.jid.split('/')[1]);
  const over = Math.max(Date.now(), cut + wait * 1000);
  const own = new Set(participants.members.map(({ room, user }) => `${room}#${user.jid}`));
  const left = async (): Promise<number> => (await testBed.rows()).filter(({ sk }) => own.has(sk)).length;
  await until('no row of those who are gone is left', async () => (await left()) === 0, RECOVERY_MS);
  const seconds_ = (Date.now() - over) / 1000;
  await base.settle(again);
  const rows = await testBed.rows();
  if (rows.some(({ expires }) => !(expires > Date.now() / 1000 && expires < Date.now() / 1000 + 10 * 86_400)))
    throw new Error('a row stays for ever');
  const wrong = [...participants.members, { ...(first as Member), user: again }].reduce(
    (sum, member) => sum + noticeCount(member),
    0,
  );
  await again.leaveServer();
  await testBed.set({});
  return { events: participants.members.length + 1, expected: 0, lost: 0, doubled: 0, wrong, seconds: seconds_ };
};

/** The module is reloaded, and its settings change, while events are queued. */
const moduleReloaded: FaultTest = async (testBed, extent) => {
  const { base } = testBed;
  const result = await lossDuring(testBed, extent, {
    early: () => base.webhooks.down(),
    meanwhile: async () => {
      await testBed.set({ ping_muc_timeout: 6 });
      await base.home.shell(`module:reload("ping_muc_webhook", "${base.home.host}")`);
      await base.webhooks.up();
    },
  });
  await testBed.set({});
  return result;
};

/** Debian's package faketime; the library's path is relative to that of the system's libraries. */
const SHIFTED = (seconds: number): NodeJS.ProcessEnv => ({
  LD_PRELOAD: '/usr/$LIB/faketime/libfaketime.so.1',
  FAKETIME: `${seconds < 0 ? '' : '+'}${seconds}`,
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
});
const RIGHT = { LD_PRELOAD: undefined, FAKETIME: undefined, FAKETIME_DONT_FAKE_MONOTONIC: undefined };

/** The functions' clock is off by so many seconds, which is tolerated; nobody is told before the delay is over. */
function clocksApart(seconds: number): FaultTest {
  return async (testBed, extent) => {
    const { base } = testBed;
    await base.runtime.restart(SHIFTED(seconds));
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
    await base.runtime.restart(RIGHT);
    return result;
  };
}

/** The functions' clock is ten minutes ahead: both doors refuse, and say why; when it is right again, nothing is missing. */
const clocksFarApart: FaultTest = async (testBed, { joins, seconds }) => {
  const { base } = testBed;
  const participants = await Participants.open(testBed);
  await participants.join(Math.ceil(joins / 2));
  await participants.recorded();
  participants.lose();
  const lines = base.runtime.lines.length;
  base.dropStreams();
  await participants.checkStarted(lines);
  await base.runtime.restart(SHIFTED(600));
  // the check begins at once, by a clock that is ahead
  const refusal = await until('the server refuses', () => testBed.lines('check interrupted', lines)[0], RECOVERY_MS);
  if (!/ahead of this server's clock/.test(String(refusal['detail'])))
    throw new Error(`the server's refusal does not say clock: ${String(refusal['detail'])}`);
  await participants.join(Math.floor(joins / 2));
  participants.lose();
  const cut = base.dropStreams();
  const ours = await until('the functions refuse', () => testBed.lines('webhook refused', lines)[0], RECOVERY_MS);
  if (!/behind this clock/.test(String(ours['detail'])))
    throw new Error(`the functions' refusal does not say clock: ${String(ours['detail'])}`);
  await until('the operator is told', async () => /refuses our signature.*clock/.test(await base.home.log()));
  if (seconds >= LONG) await sleep(seconds * 1000);
  await base.runtime.restart(RIGHT);
  return participants.end(Math.max(Date.now(), cut + DELAY * 1000));
};

/** Half of the rows are deleted by hand; the refresh brings them back within one interval. */
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
  await until('all rows are back', async () => (await own()).length === joins, RECOVERY_MS);
  const healed = (Date.now() - deleted) / 1000;
  if (healed > REFRESH + 3) throw new Error(`healing took ${healed} s, the interval is ${REFRESH} s`);
  participants.lose();
  const cut = base.dropStreams();
  const result = await participants.end(cut + DELAY * 1000);
  await testBed.set({});
  return { ...result, seconds: healed };
};

/** Both sides take a new secret, one after the other, while users join and streams close. */
const secretRotated: FaultTest = async (testBed, { joins, seconds }) => {
  const { base, aws } = testBed;
  const old = base.runtime.secret;
  const fresh = `whsec_${randomBytes(32).toString('base64')}`;
  /** What Secrets Manager holds. */
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
  // and back, so that the scene is as it was
  aws.interceptor = {};
  await base.runtime.restart();
  await testBed.set({});
  return result;
};

/** Every fault by name. */
export const FAULTS: Readonly<Record<string, FaultTest>> = {
  'webhooks: endpoint down': endpointDown,
  'webhooks: answers 500': webhooksMeet(() => ({ before: () => new StubAnswer(500) })),
  'webhooks: answers 429 with Retry-After': endpointThrottles,
  'webhooks: connection reset': webhooksMeet(() => ({
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
  ), // there may be but one such request
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

/** Some scenes, in each of which one fault is played at a time. */
export class TestBedPool {
  readonly #free: FaultTestBed[] = [];
  readonly #waiting: (() => void)[] = [];
  #mayOpen: number;

  constructor(size: number) {
    this.#mayOpen = size;
  }

  /** Plays a fault as soon as a scene is free. */
  async run(fault: string, extent: Extent): Promise<FaultResult> {
    const run = FAULTS[fault];
    if (run === undefined) throw new Error(`there is no fault of this name: ${fault}`);
    const testBed = await this.#take();
    try {
      const result = { fault, ...(await run(testBed, extent)) };
      this.#free.push(testBed);
      return result;
    } catch (error) {
      await testBed.close(); // nobody knows in what state it is
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

/** A generator of numbers from 0 to 1 that are the same for the same seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
