import { decodeSecret } from '../../functions/core/signature.ts';
import { ALL, type TableFault, accessDenied, internalError } from './memory-dynamodb.ts';
import { HOUR, MINUTE, SECOND, type World } from './world.ts';

/** A fault that raises an alarm. */
export interface Fault {
  /** The alarm's name, without the stack's. */
  readonly alarm: string;
  /** What is wrong, for docs/alarms.md. */
  readonly fault: string;
  /** Begins the fault. The returned function ends it. */
  readonly begin: (world: World) => () => void;
  /** It ends after so long, in milliseconds. Default: five minutes after the alarm is raised. */
  readonly lasts?: number;
  /** The alarm must be raised within so many milliseconds. Default: half an hour. */
  readonly within?: number;
}

const WRONG_KEYS = [decodeSecret(Buffer.alloc(32, 2).toString('base64'))];

/** Sets a fault until its end. */
const during =
  (
    begin: (world: World) => void,
    end: (world: World) => void,
    traffic?: (world: World) => () => void,
  ): Fault['begin'] =>
  (world) => {
    begin(world);
    const stop = traffic?.(world);
    return () => {
      stop?.();
      end(world);
    };
  };

const apiFault = (fault: NonNullable<World['stack']['server']['fault']>): Fault['begin'] =>
  during(
    ({ stack }) => (stack.server.fault = fault),
    ({ stack }) => (stack.server.fault = undefined),
    oneClose,
  );
const tableFault = (fault: TableFault, client = ALL, traffic?: (world: World) => () => void): Fault['begin'] =>
  during(
    ({ stack }) => stack.dynamoDb.faults.set(client, fault),
    ({ stack }) => stack.dynamoDb.faults.delete(client),
    traffic,
  );
const functionFault =
  (name: 'webhook' | 'check', fault: World['stack']['check']['fault'], traffic?: (world: World) => () => void) =>
  (world: World): (() => void) =>
    during(
      ({ stack }) => (stack[name].fault = fault),
      ({ stack }) => (stack[name].fault = undefined),
      traffic,
    )(world);

/** One check in all, of some users who were lost: the least that can be noticed. */
function oneClose(world: World): () => void {
  const [host, remote] = [one(world).host, world.remotes[0]];
  for (let n = 0; n < 3; n += 1) world.join(host, remote);
  world.close(1, host, remote);
  return () => undefined;
}

/** Closes in which users are lost, so often. */
const losses =
  (everyMs: number, share = 0.5) =>
  (world: World): (() => void) =>
    world.every(everyMs, () => world.close(share));

/** The first server. */
const one = ({ senders }: World): World['senders'][number] => {
  const [sender] = senders;
  if (sender === undefined) throw new Error('there is no server');
  return sender;
};

const webhookFaults: readonly Fault[] = [
  {
    alarm: 'Webhooks fail',
    fault: 'DynamoDB answers every call with an error',
    begin: tableFault({ error: internalError }),
  },
  {
    alarm: 'Webhooks fail',
    fault: 'The webhook function is throttled',
    begin: functionFault('webhook', 'throttled'),
  },
  { alarm: 'Webhooks fail', fault: 'The webhook function dies', begin: functionFault('webhook', 'dies') },
  {
    alarm: 'Webhooks are slow',
    fault: 'DynamoDB takes 3 s for each call, and a server reports 100 joins a minute',
    begin: tableFault({ latencyMs: 3000 }, ALL, (world) =>
      world.every(MINUTE, () => {
        for (let n = 0; n < 100; n += 1) world.join(one(world).host);
      }),
    ),
  },
  {
    alarm: 'Signatures are rejected',
    fault: 'One server of two has another secret',
    begin: (world) => {
      const { keys } = one(world);
      one(world).keys = WRONG_KEYS;
      return () => (one(world).keys = keys);
    },
  },
  {
    alarm: 'Webhooks are malformed',
    fault: 'One server of two sends events without `at`',
    begin: during(
      (world) => (one(world).spoil = (event) => ({ ...event, at: undefined })),
      (world) => (one(world).spoil = undefined),
    ),
  },
  {
    alarm: 'A server is silent',
    fault: 'One server of two sends nothing more',
    begin: during(
      (world) => (one(world).isDown = true),
      (world) => (one(world).isDown = false),
    ),
  },
  {
    alarm: 'A server is silent',
    fault: 'All servers send nothing more',
    begin: during(
      ({ senders }) => senders.forEach((sender) => (sender.isDown = true)),
      ({ senders }) => senders.forEach((sender) => (sender.isDown = false)),
    ),
  },
  {
    alarm: "The server's queue is old",
    fault: 'The network loses four of five requests of one server',
    begin: (world) => {
      const sender = one(world);
      const direct = sender.network;
      sender.network = async (deliver) => (world.chance() < 0.2 ? deliver() : undefined);
      return () => (sender.network = direct);
    },
  },
  {
    alarm: 'Table is throttled',
    fault: 'DynamoDB throttles one call in three',
    begin: tableFault({ throttled: 1 / 3 }),
  },
];

const checkFaults: readonly Fault[] = [
  {
    alarm: 'Checks fail',
    fault: 'The server answers one check with 400',
    begin: apiFault({ kind: 'status', status: 400 }),
  },
  {
    alarm: 'Checks are late',
    fault: 'The check function is throttled for five minutes, when one check is due. It is raised by its first answer',
    begin: functionFault('check', 'throttled', oneClose),
    lasts: 5 * MINUTE,
  },
  {
    alarm: 'Checks are late',
    fault: 'The network of one server is down for an hour, so its reports wait. It is raised when they arrive',
    begin: (world) => {
      const sender = one(world);
      const direct = sender.network;
      sender.network = () => Promise.resolve(undefined);
      const stop = world.every(10 * MINUTE, () => world.close(0.2, sender.host));
      return () => {
        stop();
        sender.network = direct;
      };
    },
    lasts: HOUR,
    within: HOUR + 5 * MINUTE,
  },
  {
    alarm: 'Check function fails',
    fault: 'The check function has lost its permission for the table',
    begin: tableFault({ error: accessDenied }, 'check', oneClose),
  },
  { alarm: 'Check function fails', fault: 'The check function dies', begin: functionFault('check', 'dies', oneClose) },
  {
    alarm: 'Check function is throttled',
    fault: 'No concurrency is left for one check',
    begin: functionFault('check', 'throttled', oneClose),
  },
  {
    alarm: 'Checks take too long',
    fault: 'The check function hangs, until Lambda ends it',
    begin: functionFault('check', 'hangs', oneClose),
  },
  {
    alarm: 'Server is out of reach',
    fault: 'The server answers one check with 503',
    begin: apiFault({ kind: 'status', status: 503 }),
    within: 15 * MINUTE,
  },
  {
    alarm: 'Server is out of reach',
    fault: 'The server closes the connections of one check',
    begin: apiFault({ kind: 'unreachable' }),
    within: 15 * MINUTE,
  },
  {
    alarm: 'Server is out of reach',
    fault: 'The server never answers one check',
    begin: apiFault({ kind: 'silent' }),
    within: 15 * MINUTE,
  },
];

const operatorFaults: readonly Fault[] = [
  {
    alarm: 'A check is held',
    fault: 'More users are lost than `ping_muc_notice_limit` allows. It ends when the operator releases them',
    begin: (world) => {
      world.settings = { notice_limit: 5 };
      for (let n = 0; n < 7; n += 1) world.join(one(world).host, world.remotes[0]);
      oneClose(world);
      return () => {
        world.settings = {};
        void releaseAll(world);
      };
    },
  },
  {
    alarm: 'Checks are paused',
    fault: 'The operator has paused all checks; one is due',
    begin: (world) => {
      void world.stack.controls.pause({ since: world.clock.now / 1000, by: 'operator', reason: 'drill' });
      oneClose(world);
      return () => void world.stack.controls.resume();
    },
  },
];

async function releaseAll({ stack, clock }: World): Promise<void> {
  for (const { name } of await stack.controls.held(clock.now / 1000))
    await stack.controls.decide(name, 'release', 'operator');
}

const objectiveFaults: readonly Fault[] = [
  {
    alarm: 'Objective: fast burn',
    fault: 'The server takes 70 s for each answer; half of the users are lost, every five minutes',
    begin: during(
      ({ stack }) => (stack.server.fault = { kind: 'slow', ms: 70 * SECOND, share: 1 }),
      ({ stack }) => (stack.server.fault = undefined),
      losses(5 * MINUTE),
    ),
  },
  {
    alarm: 'Objective: slow burn',
    fault: 'The server takes 70 s for one answer in 32; a third of the users are lost, every two minutes',
    begin: during(
      ({ stack }) => (stack.server.fault = { kind: 'slow', ms: 70 * SECOND, share: 1 / 32 }),
      ({ stack }) => (stack.server.fault = undefined),
      losses(2 * MINUTE, 1 / 3),
    ),
    within: 12 * HOUR,
  },
];

/** In the order of the alarms. */
export const FAULTS: readonly Fault[] = [...webhookFaults, ...checkFaults, ...operatorFaults, ...objectiveFaults];
