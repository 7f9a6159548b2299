import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  InternalServerError,
  ProvisionedThroughputExceededException,
} from '@aws-sdk/client-dynamodb';
import type { UsedCapacity } from '../../local/dynamodb.ts';
import { type Item, type Names, compare, meets, updated } from './expressions.ts';

/** What is wrong with the table. */
export interface TableFault {
  /** Milliseconds that a call takes. */
  readonly latencyMs?: number;
  /** The share of calls that are throttled. */
  readonly throttled?: number;
  /** The error of each call. */
  readonly error?: () => Error;
}

export const internalError = (): Error => new InternalServerError({ message: 'Internal server error', $metadata: {} });
const throttledError = (): Error => new ProvisionedThroughputExceededException({ message: 'too much', $metadata: {} });
export const accessDenied = (): Error => Object.assign(new Error('not allowed'), { name: 'AccessDeniedException' });
const conditionFailed = (): Error => new ConditionalCheckFailedException({ message: 'no', $metadata: {} });

/** How a client repeats calls: with full jitter, as the SDK does and functions/adapters/aws.ts. */
export interface Retries {
  readonly attempts: number;
  readonly firstMs: number;
  readonly longestMs: number;
}

/** The name that stands for all clients. */
export const ALL = 'all';
/** A call takes so long where nothing is wrong. */
const LATENCY_MS = 5;

const isTransient = (error: unknown): boolean =>
  error instanceof InternalServerError || error instanceof ProvisionedThroughputExceededException;

interface Input extends Names {
  readonly TableName?: string;
  readonly Key?: Item;
  readonly Item?: Item;
  readonly ConditionExpression?: string;
  readonly UpdateExpression?: string;
  readonly KeyConditionExpression?: string;
  readonly FilterExpression?: string;
  readonly Limit?: number;
  readonly ExclusiveStartKey?: Item;
}

interface Page {
  readonly Items: readonly Item[];
  readonly LastEvaluatedKey?: Item;
}

/** The items of one partition. */
class Partition {
  readonly #items = new Map<string, Item>();
  #sorted: readonly Item[] | undefined;

  get(sortKey: string): Item | undefined {
    return this.#items.get(sortKey);
  }

  set(sortKey: string, item: Item | undefined): void {
    this.#sorted = undefined;
    if (item === undefined) this.#items.delete(sortKey);
    else this.#items.set(sortKey, item);
  }

  /** In the order of the sort keys. */
  sorted(): readonly Item[] {
    this.#sorted ??= [...this.#items.values()].sort((one, other) => compare(keyOf(one, 'sk'), keyOf(other, 'sk')));
    return this.#sorted;
  }
}

const keyOf = (item: Item, name: 'pk' | 'sk'): AttributeValue => item[name] ?? { S: '' };

/** A DynamoDB with the one table of the stack, in memory. Only its clients differ in how they repeat calls. */
export class MemoryDynamoDB {
  /** For all clients, or for those of one name. */
  readonly faults = new Map<string, TableFault>();
  readonly #partitions = new Map<string, Partition>();
  readonly #observe: (used: UsedCapacity) => void;

  constructor(observe: (used: UsedCapacity) => void) {
    this.#observe = observe;
  }

  /** A client of which the functions use only `send`. @param name for `faults` */
  client(name: string, { attempts, firstMs, longestMs }: Retries): DynamoDBClient {
    const send = async (command: { readonly input: Input }): Promise<unknown> => {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await this.#call(
            command.constructor.name,
            command.input,
            this.faults.get(name) ?? this.faults.get(ALL),
          );
        } catch (error) {
          if (attempt >= attempts || !isTransient(error)) throw error;
          await sleep(Math.random() * Math.min(longestMs, firstMs * 2 ** (attempt - 1)));
        }
      }
    };
    return { send } as unknown as DynamoDBClient;
  }

  async #call(command: string, input: Input, fault: TableFault = {}): Promise<unknown> {
    const { latencyMs = LATENCY_MS, throttled = 0, error } = fault;
    await sleep(latencyMs);
    const isWrite = command !== 'QueryCommand' && command !== 'GetItemCommand';
    const isThrottled = Math.random() < throttled;
    this.#observe({ table: input.TableName ?? '', isWrite, units: 1, isThrottled, at: Date.now() });
    if (isThrottled) throw throttledError();
    if (error !== undefined) throw error();
    switch (command) {
      case 'GetItemCommand':
        return { Item: this.#find(input.Key) };
      case 'QueryCommand':
        return this.#query(input);
      case 'UpdateItemCommand':
        return this.#write(input, (item) => updated(item, input.UpdateExpression ?? '', input));
      case 'PutItemCommand':
        return this.#write(input, () => input.Item);
      case 'DeleteItemCommand':
        return this.#write(input, () => undefined);
      default:
        throw new Error(`${command} is not supported here`);
    }
  }

  #partition(pk: string): Partition {
    const known = this.#partitions.get(pk) ?? new Partition();
    this.#partitions.set(pk, known);
    return known;
  }

  #find(key: Item = {}): Item | undefined {
    return this.#partition(keyOf(key, 'pk').S ?? '').get(keyOf(key, 'sk').S ?? '');
  }

  #write(input: Input, change: (item: Item) => Item | undefined): object {
    const { pk = { S: '' }, sk = { S: '' } } = input.Key ?? input.Item ?? {};
    const known = this.#find({ pk, sk });
    if (!meets(known ?? {}, input.ConditionExpression, input)) throw conditionFailed();
    this.#partition(pk.S ?? '').set(sk.S ?? '', change(known ?? { pk, sk }));
    return {};
  }

  /** The condition on keys begins with the partition. The limit counts the rows before the filter, as in DynamoDB. */
  #query(input: Input): Page {
    const { KeyConditionExpression: keys = '', FilterExpression: filter, Limit = Infinity, ExclusiveStartKey } = input;
    const name = /^\S+ = (:\w+)/.exec(keys)?.[1] ?? '';
    const rows = this.#partition(input.ExpressionAttributeValues?.[name]?.S ?? '').sorted();
    const start = ExclusiveStartKey === undefined ? undefined : keyOf(ExclusiveStartKey, 'sk');
    const first = start === undefined ? 0 : rows.findIndex((row) => compare(keyOf(row, 'sk'), start) > 0);
    const found: Item[] = [];
    let index = first < 0 ? rows.length : first;
    for (; index < rows.length && found.length < Limit; index += 1) {
      const row = rows[index];
      if (row !== undefined && meets(row, keys, input)) found.push(row);
    }
    const last = found.at(-1);
    const Items = found.filter((row) => meets(row, filter, input));
    if (index >= rows.length || last === undefined) return { Items };
    return { Items, LastEvaluatedKey: { pk: keyOf(last, 'pk'), sk: keyOf(last, 'sk') } };
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
