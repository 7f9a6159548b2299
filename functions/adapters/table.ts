import {
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  QueryCommand,
  UpdateItemCommand,
  type AttributeValue,
} from '@aws-sdk/client-dynamodb';
import type { CloseRecord, StoredJoin } from '../core/check-state.ts';
import type { CheckRequest, JoinedEvent, LeftEvent } from '../core/events.ts';
import { holds, number, text } from './items.ts';

/**
 * The joins and closes of the one table. Its other rows are those of hosts.ts and controls.ts.
 *
 *   pk = JOIN#<host>#<remote>   sk = <room>#<user>   nick, at, state, expires, undecidedBy
 *   pk = CLOSE#<host>#<remote>  sk = close           at, delay, since, checked, answers, expires
 *                               sk = <room>          the same, for the other causes of checks of this room (rule 11).
 *                                                    A check of all rooms, of whatever cause, has the row of a close.
 *
 * Of a close's row, `since` is CloseRecord's oldestUnanswered, `checked` its checkBegun, `answers` its oldestAnswered.
 *
 * Events may come late, twice and in the wrong order, so a write replaces only an older row:
 *
 *   time ──▶   joined(1)   left(2)        table
 *   in order   written     written        left(2)
 *   reversed   refused     written        left(2)     a leave keeps its row for an hour, to refuse late joins
 *   twice      renewed     renewed        left(2)     an equal moment is accepted, and renews `expires`
 */

/** A join outlives two missed renewals of the longest interval (`ping_muc_refresh`, at most three days). */
const JOIN_SECONDS = 9 * 86_400;
/**
 * How long the row of a leave refuses late joins. In the sender's queue a leave replaces its join, so only a request
 * that was under way can bring that join later: within seconds.
 */
const LEFT_SECONDS = 3600;
/** How long closes are remembered: longer than the longest delay and patience. */
const CLOSE_SECONDS = 7 * 86_400;
/** Rows read at a time. */
const PAGE_ROWS = 1000;
/** The sort key of closes. It cannot be a room, because it contains no @. */
const CLOSE_SORT_KEY = 'close';

/** An expired row counts as absent: DynamoDB may delete it days later. */
const NEWER = 'attribute_not_exists(pk) OR #at <= :at OR #expires < :now';

const joinsOf = (host: string, remote: string): AttributeValue => text(`JOIN#${host}#${remote}`);
const closeKey = (close: CheckRequest): Record<string, AttributeValue> => ({
  pk: text(`CLOSE#${close.host}#${close.remote}`),
  sk: text(close.room ?? CLOSE_SORT_KEY),
});
const joinKey = (join: StoredJoin): Record<string, AttributeValue> => ({
  pk: joinsOf(join.host, join.remote),
  sk: text(join.key),
});

export class Table {
  readonly #client: DynamoDBClient;
  readonly #name: string;

  constructor(client: DynamoDBClient, name: string) {
    this.#client = client;
    this.#name = name;
  }

  /**
   * Records a join or a leave. Returns false if the row is newer.
   *
   * A renewed join stays marked undecided: the check that marked it will ask about it again.
   * @throws RowRefusedError
   */
  async record(event: JoinedEvent | LeftEvent, nowSeconds: number): Promise<boolean> {
    const joined = event.type === 'muc.joined';
    return holds(
      this.#client.send(
        new UpdateItemCommand({
          TableName: this.#name,
          Key: { pk: joinsOf(event.host, event.remote), sk: text(`${event.room}#${event.user}`) },
          UpdateExpression:
            'SET #at = :at, #state = :state, #expires = :expires' +
            (joined ? ', nick = :nick' : ' REMOVE nick, undecidedBy'),
          ConditionExpression: NEWER,
          ExpressionAttributeNames: { '#at': 'at', '#state': 'state', '#expires': 'expires' },
          ExpressionAttributeValues: {
            ':at': number(event.at),
            ':state': text(joined ? 'joined' : 'left'),
            ':expires': number(Math.floor(nowSeconds) + (joined ? JOIN_SECONDS : LEFT_SECONDS)),
            ':now': number(Math.floor(nowSeconds)),
            ...(joined ? { ':nick': text(event.nick) } : {}),
          },
        }),
      ),
    );
  }

  /** The joins on the remote host, or in the one room, made before the close: in the order of keys, page by page. */
  async *readJoins(
    close: CheckRequest,
    cursor: string | undefined,
    nowSeconds: number,
  ): AsyncGenerator<readonly StoredJoin[], void> {
    const pk = joinsOf(close.host, close.remote);
    let start = cursor === undefined ? undefined : { pk, sk: text(cursor) };
    do {
      const page = await this.#client.send(
        new QueryCommand({
          TableName: this.#name,
          KeyConditionExpression: `pk = :pk${close.room === undefined ? '' : ' AND begins_with(sk, :room)'}`,
          // joins made before the close (rule 4 in docs/rules.md)
          FilterExpression: '#state = :joined AND #at < :close AND #expires >= :now',
          ExpressionAttributeNames: { '#state': 'state', '#at': 'at', '#expires': 'expires' },
          ExpressionAttributeValues: {
            ':pk': pk,
            // a host contains no #, so the keys of no other room begin like this
            ...(close.room === undefined ? {} : { ':room': text(`${close.room}#`) }),
            ':joined': text('joined'),
            ':close': number(close.at),
            ':now': number(Math.floor(nowSeconds)),
          },
          ConsistentRead: true,
          Limit: PAGE_ROWS,
          ...(start === undefined ? {} : { ExclusiveStartKey: start }),
        }),
      );
      yield (page.Items ?? []).map((item) => storedJoin(close, item));
      start = page.LastEvaluatedKey as typeof start;
    } while (start !== undefined);
  }

  /** Deletes a join's row, unless a newer event has taken its place. */
  async deleteJoin(join: StoredJoin): Promise<void> {
    await holds(
      this.#client.send(
        new DeleteItemCommand({
          TableName: this.#name,
          Key: joinKey(join),
          ConditionExpression: '#at = :at',
          ExpressionAttributeNames: { '#at': 'at' },
          ExpressionAttributeValues: { ':at': number(join.at) },
        }),
      ),
    );
  }

  /** Marks a join that the check of the close at `checkAt` left undecided, unless a newer check has marked it. */
  async markUndecided(join: StoredJoin, checkAt: number): Promise<void> {
    await this.#mark(
      join,
      checkAt,
      'SET undecidedBy = :check',
      '(attribute_not_exists(undecidedBy) OR undecidedBy < :check)',
    );
  }

  /** Removes the mark, unless it is of a newer check than that of the close at `checkAt`. */
  async markDecided(join: StoredJoin, checkAt: number): Promise<void> {
    await this.#mark(join, checkAt, 'REMOVE undecidedBy', 'undecidedBy <= :check');
  }

  async #mark(join: StoredJoin, checkAt: number, update: string, condition: string): Promise<void> {
    await holds(
      this.#client.send(
        new UpdateItemCommand({
          TableName: this.#name,
          Key: joinKey(join),
          UpdateExpression: update,
          ConditionExpression: `#at = :at AND ${condition}`,
          ExpressionAttributeNames: { '#at': 'at' },
          ExpressionAttributeValues: { ':at': number(join.at), ':check': number(checkAt) },
        }),
      ),
    );
  }

  /** Records the newest close of a pair of hosts. @throws RowRefusedError */
  async recordClose(close: CheckRequest, nowSeconds: number): Promise<void> {
    await holds(
      this.#client.send(
        new UpdateItemCommand({
          TableName: this.#name,
          Key: closeKey(close),
          UpdateExpression: 'SET #at = :at, #delay = :delay, #expires = :expires, since = if_not_exists(since, :at)',
          ConditionExpression: 'attribute_not_exists(pk) OR #at < :at',
          ExpressionAttributeNames: { '#at': 'at', '#delay': 'delay', '#expires': 'expires' },
          ExpressionAttributeValues: {
            ':at': number(close.at),
            ':delay': number(close.delay),
            ':expires': number(Math.floor(nowSeconds) + CLOSE_SECONDS),
          },
        }),
      ),
    );
  }

  async readClose(close: CheckRequest): Promise<CloseRecord | undefined> {
    const { Item } = await this.#client.send(
      new GetItemCommand({ TableName: this.#name, Key: closeKey(close), ConsistentRead: true }),
    );
    if (Item?.['at'] === undefined) return undefined;
    const optional = (name: keyof CloseRecord, attribute: string): Partial<CloseRecord> =>
      Item[attribute] === undefined ? {} : { [name]: Number(Item[attribute].N) };
    return {
      at: Number(Item['at'].N),
      delay: Number(Item['delay']?.N ?? close.delay),
      ...optional('oldestUnanswered', 'since'),
      ...optional('checkBegun', 'checked'),
      ...optional('oldestAnswered', 'answers'),
    };
  }

  /**
   * Records that the check of this close has begun. Closes after it are still unanswered. The oldest of them is not on
   * record, so the five delays (rule 5, docs/rules.md) count from this close.
   * `answers` keeps the oldest close that this check answers (µs), for a second run of the check.
   * Returns false if the record has changed since it was read.
   */
  async claimClose(close: CheckRequest, seen: CloseRecord, oldest: number): Promise<boolean> {
    const newer = seen.at > close.at;
    return holds(
      this.#client.send(
        new UpdateItemCommand({
          TableName: this.#name,
          Key: closeKey(close),
          UpdateExpression: `SET checked = :close, answers = :oldest${newer ? ', since = :close' : ' REMOVE since'}`,
          ConditionExpression: '#at = :seen',
          ExpressionAttributeNames: { '#at': 'at' },
          ExpressionAttributeValues: {
            ':close': number(close.at),
            ':seen': number(seen.at),
            ':oldest': number(oldest),
          },
        }),
      ),
    );
  }

  /**
   * Records that the closes since `oldest` (µs) are unanswered. An older moment on record stays. A newer check that has
   * begun answers them itself: then nothing is recorded, because it would count against closes of another day.
   */
  async passOn(close: CheckRequest, oldest: number): Promise<void> {
    await holds(
      this.#client.send(
        new UpdateItemCommand({
          TableName: this.#name,
          Key: closeKey(close),
          UpdateExpression: 'SET since = :oldest',
          ConditionExpression:
            'attribute_exists(pk) AND (attribute_not_exists(since) OR since > :oldest) ' +
            'AND (attribute_not_exists(checked) OR checked <= :close)',
          ExpressionAttributeValues: { ':oldest': number(oldest), ':close': number(close.at) },
        }),
      ),
    );
  }
}

function storedJoin(close: CheckRequest, item: Record<string, AttributeValue>): StoredJoin {
  const key = item['sk']?.S ?? '';
  const split = key.indexOf('#', key.indexOf('@')); // a localpart may contain #, a host may not
  const undecidedBy = item['undecidedBy']?.N;
  return {
    host: close.host,
    remote: close.remote,
    room: key.slice(0, split),
    user: key.slice(split + 1),
    nick: item['nick']?.S ?? '',
    at: Number(item['at']?.N),
    key,
    ...(undecidedBy === undefined ? {} : { undecidedBy: Number(undecidedBy) }),
  };
}
