import { type DynamoDBClient, QueryCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import type { Heartbeat, Queue } from '../core/heartbeats.ts';
import { holds, number, text } from './items.ts';

/** The partition of the last heartbeats of all hosts. */
const PARTITION = text('HOST');
/** Hosts that are read: the first ones in the order of their names. A page of rows has at most 1 MB. */
const MAX_HOSTS = 1000;
/** How long a host is remembered after its last heartbeat. */
const HOST_SECONDS = 7 * 86_400;

/** The last heartbeats of the hosts, and how many hosts there were too many to read. */
export interface Heartbeats {
  readonly heartbeats: readonly Heartbeat[];
  readonly isComplete: boolean;
}

/** The table's rows of hosts (rule 12, docs/rules.md): pk = HOST, sk = <host>, sent, last, length, oldest, expires. */
export class Hosts {
  readonly #client: DynamoDBClient;
  readonly #name: string;

  constructor(client: DynamoDBClient, name: string) {
    this.#client = client;
    this.#name = name;
  }

  /**
   * Records a heartbeat, unless a newer one is on record. One write unit.
   * @param sentSeconds the sender's own timestamp of the webhook, which orders heartbeats: a repeated one is refused
   * @returns false if the recorded one is as new, or newer
   * @throws RowRefusedError
   */
  record(host: string, queue: Queue, sentSeconds: number, nowSeconds: number): Promise<boolean> {
    return holds(
      this.#client.send(
        new UpdateItemCommand({
          TableName: this.#name,
          Key: { pk: PARTITION, sk: text(host) },
          UpdateExpression:
            'SET #sent = :sent, #last = :now, #length = :length, #oldest = :oldest, #expires = :expires',
          ConditionExpression: 'attribute_not_exists(pk) OR #sent < :sent',
          ExpressionAttributeNames: {
            '#sent': 'sent',
            '#last': 'last',
            '#length': 'length',
            '#oldest': 'oldest',
            '#expires': 'expires',
          },
          ExpressionAttributeValues: {
            ':sent': number(sentSeconds),
            ':now': number(Math.floor(nowSeconds)),
            ':length': number(queue.length),
            ':oldest': number(queue.oldest),
            ':expires': number(Math.floor(nowSeconds) + HOST_SECONDS),
          },
        }),
      ),
    );
  }

  /** The last heartbeats, of at most 1,000 hosts. One read unit for some 40 hosts. An expired row counts as absent. */
  async read(nowSeconds: number): Promise<Heartbeats> {
    const page = await this.#client.send(
      new QueryCommand({
        TableName: this.#name,
        KeyConditionExpression: 'pk = :host',
        FilterExpression: '#expires >= :now',
        ExpressionAttributeNames: { '#expires': 'expires' },
        ExpressionAttributeValues: { ':host': PARTITION, ':now': number(Math.floor(nowSeconds)) },
        ConsistentRead: true, // the heartbeat that was recorded a moment ago counts
        Limit: MAX_HOSTS,
      }),
    );
    const heartbeats = (page.Items ?? []).map((item) => ({
      host: item['sk']?.S ?? '',
      last: Number(item['last']?.N),
      length: Number(item['length']?.N),
      oldest: Number(item['oldest']?.N),
    }));
    return { heartbeats, isComplete: page.LastEvaluatedKey === undefined };
  }
}
