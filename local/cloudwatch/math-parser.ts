/** Parses metric math to a tree. Identifiers of functions are in capitals, those of metrics begin in lower case. */
export type Operator = '+' | '-' | '*' | '/' | '^' | '==' | '!=' | '<' | '<=' | '>' | '>=' | 'AND' | 'OR';

export type Expression =
  | { readonly kind: 'number'; readonly value: number }
  | { readonly kind: 'id'; readonly id: string }
  | { readonly kind: 'array'; readonly items: readonly Expression[] }
  | { readonly kind: 'call'; readonly name: string; readonly arguments: readonly Expression[] }
  | { readonly kind: 'operator'; readonly operator: Operator; readonly left: Expression; readonly right: Expression };

/** An expression that cannot be evaluated. */
export class MathError extends Error {
  override readonly name = 'MathError';
}

/** CloudWatch accepts expressions of up to 2,048 characters (MetricDataQuery). */
const MAX_LENGTH = 2048;
const TOKEN = /\s*(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[A-Za-z]\w*|==|!=|<=|>=|&&|\|\||[-+*/^<>()[\],])/y;

const PRECEDENCE: readonly (readonly Operator[])[] = [
  ['OR'],
  ['AND'],
  ['==', '!=', '<', '<=', '>', '>='],
  ['+', '-'],
  ['*', '/'],
];
const ALIASES: Readonly<Record<string, string>> = { '&&': 'AND', '||': 'OR' };

/** @throws MathError with the place of the first part that cannot be read */
export function parseMath(text: string): Expression {
  const parser = new Parser(text);
  const expression = parser.expression();
  parser.end();
  return expression;
}

class Parser {
  readonly #text: string;
  readonly #tokens: readonly string[];
  #next = 0;

  constructor(text: string) {
    if (text.length > MAX_LENGTH) throw new MathError(`an expression may have ${MAX_LENGTH} characters`);
    this.#text = text;
    this.#tokens = tokenize(text);
  }

  expression(level = 0): Expression {
    const operators = PRECEDENCE[level];
    if (operators === undefined) return this.#unary();
    let left = this.expression(level + 1);
    for (;;) {
      const operator = operators.find((candidate) => candidate === this.#peek());
      if (operator === undefined) return left;
      this.#next += 1;
      left = { kind: 'operator', operator, left, right: this.expression(level + 1) };
    }
  }

  end(): void {
    if (this.#peek() !== undefined) this.#fail();
  }

  #unary(): Expression {
    if (this.#peek() !== '-') return this.#power();
    this.#next += 1;
    return { kind: 'operator', operator: '-', left: { kind: 'number', value: 0 }, right: this.#unary() };
  }

  #power(): Expression {
    const left = this.#primary();
    if (this.#peek() !== '^') return left;
    this.#next += 1;
    return { kind: 'operator', operator: '^', left, right: this.#unary() };
  }

  #primary(): Expression {
    const token = this.#peek() ?? this.#fail();
    this.#next += 1;
    if (/^\d/.test(token)) return { kind: 'number', value: Number(token) };
    if (token === '(') {
      const inner = this.expression();
      this.#expect(')');
      return inner;
    }
    if (token === '[') return { kind: 'array', items: this.#list(']') };
    if (!/^[A-Za-z]/.test(token)) this.#fail(-1);
    if (this.#peek() !== '(') return { kind: 'id', id: token };
    this.#next += 1;
    return { kind: 'call', name: token, arguments: this.#list(')') };
  }

  #list(closing: string): readonly Expression[] {
    const items: Expression[] = [];
    while (this.#peek() !== closing) {
      if (items.length > 0) this.#expect(',');
      items.push(this.expression());
    }
    this.#next += 1;
    return items;
  }

  #expect(token: string): void {
    if (this.#peek() !== token) this.#fail();
    this.#next += 1;
  }

  #peek(): string | undefined {
    return this.#tokens[this.#next];
  }

  #fail(offset = 0): never {
    const token = this.#tokens[this.#next + offset] ?? 'its end';
    throw new MathError(`the expression "${this.#text}" cannot be read at ${token}`);
  }
}

function tokenize(text: string): readonly string[] {
  const tokens: string[] = [];
  const rest = text.trimEnd();
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < rest.length) {
    const from = TOKEN.lastIndex;
    const token = TOKEN.exec(rest)?.[1];
    if (token === undefined) throw new MathError(`the expression "${text}" cannot be read at ${rest.slice(from)}`);
    tokens.push(ALIASES[token] ?? token);
  }
  return tokens;
}
