import type { AttributeValue } from '@aws-sdk/client-dynamodb';
import type { Join } from '../../functions/core/events.ts';

/** A join, as the console keeps it. */
export interface IndexedJoin extends Join {
  readonly isUndecided: boolean;
}

type JoinKey = Pick<IndexedJoin, 'host' | 'remote' | 'room' | 'user'>;

export type JoinChange =
  | { readonly kind: 'joined'; readonly join: IndexedJoin }
  | { readonly kind: 'ended'; readonly key: JoinKey }
  | { readonly kind: 'marked'; readonly key: JoinKey; readonly isUndecided: boolean };

type Item = Readonly<Record<string, AttributeValue>>;

/** The key of a join's row (functions/adapters/table.ts). Undefined: the row is of another kind. */
function joinKey(item: Item): JoinKey | undefined {
  const [kind, host, remote] = (item['pk']?.S ?? '').split('#');
  const key = item['sk']?.S ?? '';
  if (kind !== 'JOIN' || host === undefined || remote === undefined) return undefined;
  const split = key.indexOf('#', key.indexOf('@')); // a localpart may contain #, a host may not
  return split < 0 ? undefined : { host, remote, room: key.slice(0, split), user: key.slice(split + 1) };
}

/** Reads a row of the table. Undefined: it is no join. */
export function readJoin(item: Item): IndexedJoin | undefined {
  const key = joinKey(item);
  if (key === undefined || item['state']?.S !== 'joined') return undefined;
  return {
    ...key,
    nick: item['nick']?.S ?? '',
    at: Number(item['at']?.N),
    isUndecided: item['undecidedBy'] !== undefined,
  };
}

/** What a write that the table has accepted means for a join. Undefined: it is about something else. */
export function readChange(operation: string, request: Readonly<Record<string, unknown>>): JoinChange | undefined {
  const {
    Key,
    ExpressionAttributeValues: values,
    UpdateExpression: update,
  } = request as {
    readonly Key?: Item;
    readonly ExpressionAttributeValues?: Item;
    readonly UpdateExpression?: string;
  };
  const key = Key === undefined ? undefined : joinKey(Key);
  if (key === undefined) return undefined;
  if (operation === 'DeleteItem') return { kind: 'ended', key };
  const state = values?.[':state']?.S;
  if (state === 'left') return { kind: 'ended', key };
  if (state === 'joined') {
    const [at, nick] = [Number(values?.[':at']?.N), values?.[':nick']?.S ?? ''];
    return { kind: 'joined', join: { ...key, nick, at, isUndecided: false } };
  }
  if (update?.includes('undecidedBy') !== true) return undefined;
  return { kind: 'marked', key, isUndecided: update.startsWith('SET') };
}
