import type { AttributeValue } from '@aws-sdk/client-dynamodb';

/** DynamoDB's condition and update expressions, as far as the functions use them. */

export type Item = Readonly<Record<string, AttributeValue>>;

/** What an expression refers to. */
export interface Names {
  readonly ExpressionAttributeNames?: Readonly<Record<string, string>> | undefined;
  readonly ExpressionAttributeValues?: Readonly<Record<string, AttributeValue>> | undefined;
}

type Operand = (item: Item, names: Names) => AttributeValue | undefined;
type Condition = (item: Item, names: Names) => boolean;
type Update = (item: Item, names: Names) => Item;

const TOKEN = /\s*(<>|<=|>=|[=<>(),+-]|[#:]?\w+)/y;

/** Reads the tokens of an expression, one after the other. */
class Tokens {
  readonly #text: string;
  readonly #tokens: readonly string[];
  #next = 0;

  constructor(text: string) {
    this.#text = text;
    const tokens: string[] = [];
    TOKEN.lastIndex = 0;
    for (let match = TOKEN.exec(text); match !== null; match = TOKEN.exec(text)) tokens.push(match[1] ?? '');
    this.#tokens = tokens;
  }

  peek(): string | undefined {
    return this.#tokens[this.#next];
  }

  take(): string {
    const token = this.#tokens[this.#next];
    if (token === undefined) throw new Error(`the expression ends too early: ${this.#text}`);
    this.#next += 1;
    return token;
  }

  accepts(word: string): boolean {
    if (this.peek()?.toUpperCase() !== word) return false;
    this.#next += 1;
    return true;
  }

  expect(word: string): void {
    if (!this.accepts(word)) throw new Error(`${word} is missing at ${this.peek() ?? 'the end'} of: ${this.#text}`);
  }
}

const valueOf = (name: string): Operand => {
  if (name.startsWith(':')) return (_, { ExpressionAttributeValues: values }) => values?.[name];
  if (!name.startsWith('#')) return (item) => item[name];
  return (item, { ExpressionAttributeNames: names }) => item[names?.[name] ?? name];
};

/** Numbers in their order, texts in the order of their bytes. */
export function compare(one: AttributeValue, other: AttributeValue): number {
  if (one.N !== undefined && other.N !== undefined) return Number(one.N) - Number(other.N);
  if (one.S !== undefined && other.S !== undefined) return Buffer.compare(Buffer.from(one.S), Buffer.from(other.S));
  return one.BOOL === other.BOOL && one.BOOL !== undefined ? 0 : NaN;
}

const COMPARISONS: Readonly<Record<string, (order: number) => boolean>> = {
  '=': (order) => order === 0,
  '<>': (order) => order !== 0,
  '<': (order) => order < 0,
  '<=': (order) => order <= 0,
  '>': (order) => order > 0,
  '>=': (order) => order >= 0,
};

function readPrimary(tokens: Tokens): Condition {
  if (tokens.accepts('NOT')) {
    const inner = readPrimary(tokens);
    return (item, names) => !inner(item, names);
  }
  if (tokens.accepts('(')) {
    const inner = readEither(tokens);
    tokens.expect(')');
    return inner;
  }
  const word = tokens.take();
  const left = valueOf(tokens.accepts('(') ? tokens.take() : word);
  switch (word) {
    case 'attribute_exists':
      tokens.expect(')');
      return (item, names) => left(item, names) !== undefined;
    case 'attribute_not_exists':
      tokens.expect(')');
      return (item, names) => left(item, names) === undefined;
    case 'begins_with': {
      tokens.expect(',');
      const start = valueOf(tokens.take());
      tokens.expect(')');
      return (item, names) => left(item, names)?.S?.startsWith(start(item, names)?.S ?? '') === true;
    }
  }
  const operator = tokens.take();
  const holds = COMPARISONS[operator];
  if (holds === undefined) throw new Error(`the operator ${operator} is not supported here`);
  const right = valueOf(tokens.take());
  return (item, names) => {
    const [a, b] = [left(item, names), right(item, names)];
    return a !== undefined && b !== undefined && holds(compare(a, b));
  };
}

function readBoth(tokens: Tokens): Condition {
  const left = readPrimary(tokens);
  if (!tokens.accepts('AND')) return left;
  const right = readBoth(tokens);
  return (item, names) => left(item, names) && right(item, names);
}

function readEither(tokens: Tokens): Condition {
  const left = readBoth(tokens);
  if (!tokens.accepts('OR')) return left;
  const right = readEither(tokens);
  return (item, names) => left(item, names) || right(item, names);
}

/** The value that SET gives an attribute. */
function readValue(tokens: Tokens): Operand {
  let value = readTerm(tokens);
  for (let sign = tokens.peek(); sign === '+' || sign === '-'; sign = tokens.peek()) {
    tokens.take();
    const [left, right, factor] = [value, readTerm(tokens), sign === '+' ? 1 : -1];
    value = (item, names) => ({ N: String(Number(left(item, names)?.N) + factor * Number(right(item, names)?.N)) });
  }
  return value;
}

function readTerm(tokens: Tokens): Operand {
  const word = tokens.take();
  if (word !== 'if_not_exists') return valueOf(word);
  tokens.expect('(');
  const known = valueOf(tokens.take());
  tokens.expect(',');
  const otherwise = valueOf(tokens.take());
  tokens.expect(')');
  return (item, names) => known(item, names) ?? otherwise(item, names);
}

function readUpdate(tokens: Tokens): Update {
  const steps: ((next: Record<string, AttributeValue>, before: Item, names: Names) => void)[] = [];
  const clause = tokens.take().toUpperCase();
  do {
    const attribute = tokens.take();
    const nameIn = ({ ExpressionAttributeNames: all }: Names): string => all?.[attribute] ?? attribute;
    if (clause === 'REMOVE') {
      steps.push((next, _, names) => Reflect.deleteProperty(next, nameIn(names)));
      continue;
    }
    if (clause === 'SET') tokens.expect('=');
    else if (clause !== 'ADD') throw new Error(`${clause} is not supported in an update`);
    const value = readValue(tokens);
    steps.push((next, before, names) => {
      const given = value(before, names);
      if (given === undefined) throw new Error(`${attribute} has no value`);
      const known = Number(before[nameIn(names)]?.N ?? 0);
      next[nameIn(names)] = clause === 'SET' ? given : { N: String(known + Number(given.N)) };
    });
  } while (tokens.accepts(','));
  const rest: Update = tokens.peek() === undefined ? (item) => item : readUpdate(tokens);
  return (item, names) => {
    const next = { ...item };
    for (const step of steps) step(next, item, names);
    return rest(next, names);
  };
}

/** Expressions that were read. The functions have some twenty. */
const conditions = new Map<string, Condition>();
const updates = new Map<string, Update>();

function known<Read>(cache: Map<string, Read>, text: string, read: (tokens: Tokens) => Read): Read {
  const cached = cache.get(text);
  if (cached !== undefined) return cached;
  const tokens = new Tokens(text);
  const result = read(tokens);
  if (tokens.peek() !== undefined) throw new Error(`${tokens.peek()} is not expected in: ${text}`);
  cache.set(text, result);
  return result;
}

/** Whether a condition holds. No condition holds always. @throws if the expression is not supported */
export const meets = (item: Item, expression: string | undefined, names: Names): boolean =>
  expression === undefined || known(conditions, expression, readEither)(item, names);

/** The item after an update. @throws if the expression is not supported */
export const updated = (item: Item, expression: string, names: Names): Item =>
  known(updates, expression, readUpdate)(item, names);
