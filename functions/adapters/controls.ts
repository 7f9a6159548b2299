import {
  type AttributeValue,
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  QueryCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import { type CheckState, type HoldRecord, decidedOf } from '../core/check-state.ts';
import { holds, number, text } from './items.ts';

/**
 * The table's rows through which an operator controls checks. Rules 13 and 14 (docs/rules.md).
 *
 *   pk = CONTROL  sk = pause         since, by, reason, until, expires
 *                 sk = check#<name>  told, expires; while held: since, host, remote, room, left, decided; decision, by
 *
 * The check function reads them and counts in them; `npm run control` shows and changes them.
 */

const PARTITION = text('CONTROL');
const PAUSE = { pk: PARTITION, sk: text('pause') };
const CHECK_PREFIX = 'check#';
/** How long the row of a check is kept: longer than it can be held. */
const CHECK_SECONDS = 7 * 86_400;
/** Rows of checks that are read. A page of rows has at most 1 MB. */
const MAX_CHECKS = 1000;

/** An operator's pause of all checks. Moments are in seconds since the epoch. */
export interface PauseRecord {
  readonly since: number;
  readonly by: string;
  readonly reason: string;
  /** When it ends by itself. */
  readonly until?: number;
}

/** A check that waits for an operator. */
export interface HeldCheck {
  /** The name of its execution. */
  readonly name: string;
  readonly host: string;
  readonly remote: string;
  readonly room?: string;
  /** Seconds since the epoch. */
  readonly since: number;
  /** Users whom it has notified or brought back. */
  readonly told: number;
  /** Joins that it has decided so far, without those that wait, and how many of them were left. */
  readonly decided: number;
  readonly left: number;
}

type Item = Record<string, AttributeValue>;

const checkKey = (name: string): Item => ({ pk: PARTITION, sk: text(`${CHECK_PREFIX}${name}`) });
/** All attributes by an alias, because some of their names are reserved words of DynamoDB. */
const aliases = (...names: readonly string[]): Record<string, string> =>
  Object.fromEntries(names.map((name) => [`#${name}`, name]));

export class Controls {
  readonly #client: DynamoDBClient;
  readonly #name: string;

  constructor(client: DynamoDBClient, name: string) {
    this.#client = client;
    this.#name = name;
  }

  /** The pause that is in force. One read unit. */
  async readPause(nowSeconds: number): Promise<PauseRecord | undefined> {
    const item = await this.#get(PAUSE);
    if (item?.['since'] === undefined) return undefined;
    const until = item['until'] === undefined ? undefined : Number(item['until'].N);
    if (until !== undefined && until <= nowSeconds) return undefined;
    return {
      since: Number(item['since'].N),
      by: item['by']?.S ?? '',
      reason: item['reason']?.S ?? '',
      ...(until === undefined ? {} : { until }),
    };
  }

  /** Pauses all checks, or changes the pause that is in force. */
  async pause({ since, by, reason, until }: PauseRecord): Promise<void> {
    await this.#client.send(
      new UpdateItemCommand({
        TableName: this.#name,
        Key: PAUSE,
        UpdateExpression:
          'SET #since = :since, #by = :by, #reason = :reason' +
          (until === undefined ? ' REMOVE #until, #expires' : ', #until = :until, #expires = :until'),
        ExpressionAttributeNames: aliases('since', 'by', 'reason', 'until', 'expires'),
        ExpressionAttributeValues: {
          ':since': number(since),
          ':by': text(by),
          ':reason': text(reason),
          ...(until === undefined ? {} : { ':until': number(until) }),
        },
      }),
    );
  }

  /** Ends the pause, if there is one. */
  async resume(): Promise<void> {
    await this.#client.send(new DeleteItemCommand({ TableName: this.#name, Key: PAUSE }));
  }

  /** What is known about the limit of notices of a check. One read unit. */
  async readHold(name: string): Promise<HoldRecord> {
    const item = await this.#get(checkKey(name));
    const decision = item?.['decision']?.S;
    return {
      told: Number(item?.['told']?.N ?? 0),
      ...(decision === 'release' || decision === 'drop' ? { decision } : {}),
    };
  }

  /** Adds to the users whom a check has notified or brought back; a negative count takes them back. One write unit. */
  async countTold(name: string, count: number, nowSeconds: number): Promise<void> {
    await this.#client.send(
      new UpdateItemCommand({
        TableName: this.#name,
        Key: checkKey(name),
        UpdateExpression: 'SET #expires = :expires ADD #told :count',
        ExpressionAttributeNames: aliases('told', 'expires'),
        ExpressionAttributeValues: {
          ':count': number(count),
          ':expires': number(Math.floor(nowSeconds) + CHECK_SECONDS),
        },
      }),
    );
  }

  /** Records that a check is held. */
  async recordHold(state: CheckState, nowSeconds: number): Promise<void> {
    const { id, host, remote, room, stoppedAt = nowSeconds, totals } = state;
    const { decided, left } = decidedOf(totals);
    const values = {
      since: number(Math.floor(stoppedAt)),
      host: text(host),
      remote: text(remote),
      ...(room === undefined ? {} : { room: text(room) }),
      decided: number(decided),
      left: number(left),
      expires: number(Math.floor(nowSeconds) + CHECK_SECONDS),
    };
    const names = Object.keys(values);
    await this.#client.send(
      new UpdateItemCommand({
        TableName: this.#name,
        Key: checkKey(id),
        UpdateExpression: `SET ${names.map((name) => `#${name} = :${name}`).join(', ')}`,
        ExpressionAttributeNames: aliases(...names),
        ExpressionAttributeValues: Object.fromEntries(Object.entries(values).map(([name, of]) => [`:${name}`, of])),
      }),
    );
  }

  async forgetHold(name: string): Promise<void> {
    await this.#client.send(new DeleteItemCommand({ TableName: this.#name, Key: checkKey(name) }));
  }

  /** The checks about which an operator has to decide: the first 1,000 rows, in the order of names. */
  async held(nowSeconds: number): Promise<readonly HeldCheck[]> {
    const { Items = [] } = await this.#client.send(
      new QueryCommand({
        TableName: this.#name,
        KeyConditionExpression: 'pk = :control AND begins_with(sk, :check)',
        FilterExpression: 'attribute_exists(#since) AND attribute_not_exists(#decision) AND #expires >= :now',
        ExpressionAttributeNames: aliases('since', 'decision', 'expires'),
        ExpressionAttributeValues: {
          ':control': PARTITION,
          ':check': text(CHECK_PREFIX),
          ':now': number(Math.floor(nowSeconds)),
        },
        ConsistentRead: true,
        Limit: MAX_CHECKS,
      }),
    );
    return Items.map(heldCheck);
  }

  /** Decides about a held check. Returns false if no check of this name waits for a decision. */
  decide(name: string, decision: 'release' | 'drop', by: string): Promise<boolean> {
    return holds(
      this.#client.send(
        new UpdateItemCommand({
          TableName: this.#name,
          Key: checkKey(name),
          UpdateExpression: 'SET #decision = :decision, #by = :by',
          ConditionExpression: 'attribute_exists(#since) AND attribute_not_exists(#decision)',
          ExpressionAttributeNames: aliases('decision', 'by', 'since'),
          ExpressionAttributeValues: { ':decision': text(decision), ':by': text(by) },
        }),
      ),
    );
  }

  /** Strongly consistent: what an operator has just decided counts. */
  async #get(key: Item): Promise<Item | undefined> {
    const { Item } = await this.#client.send(
      new GetItemCommand({ TableName: this.#name, Key: key, ConsistentRead: true }),
    );
    return Item;
  }
}

function heldCheck(item: Item): HeldCheck {
  const room = item['room']?.S;
  return {
    name: item['sk']?.S?.slice(CHECK_PREFIX.length) ?? '',
    host: item['host']?.S ?? '',
    remote: item['remote']?.S ?? '',
    ...(room === undefined ? {} : { room }),
    since: Number(item['since']?.N),
    told: Number(item['told']?.N ?? 0),
    decided: Number(item['decided']?.N),
    left: Number(item['left']?.N),
  };
}
