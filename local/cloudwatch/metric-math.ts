import type { Series } from './data-point.ts';
import { type Expression, MathError, type Operator } from './math-parser.ts';

/**
 * Metric math, as far as our stack uses it.
 *
 * "Using math expressions with CloudWatch metrics":
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
 *
 * An expression yields a time series (TS), an array of them (TS[]) or a scalar (S). Missing data, as documented there:
 * an operator between two time series takes a missing value as 0 if the other has one, and yields nothing if both are
 * missing; a quotient by 0 is dropped; FILL fills.
 */
type Value = number | Series | readonly Series[];

/** What an expression can refer to. */
export interface Scope {
  /** The value of a metric or of another expression. @throws MathError if there is none with this id */
  readonly valueOf: (id: string) => Value;
  /** The number of periods in each time series. */
  readonly length: number;
}

/** Evaluates an expression to a time series. @throws MathError if it is none, or if a function is not supported */
export function evaluateSeries(expression: Expression, scope: Scope): Series {
  const value = evaluate(expression, scope);
  if (!isSeries(value)) throw new MathError('an expression must result in one time series');
  return value;
}

const isSeries = (value: Value | undefined): value is Series => Array.isArray(value) && !Array.isArray(value[0]);
const isArray = (value: Value | undefined): value is readonly Series[] =>
  Array.isArray(value) && Array.isArray(value[0]);

function evaluate(expression: Expression, scope: Scope): Value {
  switch (expression.kind) {
    case 'number':
      return expression.value;
    case 'id':
      return scope.valueOf(expression.id);
    case 'array':
      return expression.items.flatMap((item) => {
        const value = evaluate(item, scope);
        if (typeof value === 'number') throw new MathError('an array must consist of time series');
        return isArray(value) ? value : [value];
      });
    case 'operator':
      return operate(expression.operator, evaluate(expression.left, scope), evaluate(expression.right, scope));
    case 'call': {
      const apply = FUNCTIONS[expression.name];
      if (apply === undefined)
        throw new MathError(`${expression.name} is not supported: use ${Object.keys(FUNCTIONS).join(', ')}`);
      const results = expression.arguments.map((argument) =>
        argument.kind === 'id' && KEYWORDS.has(argument.id) ? argument.id : evaluate(argument, scope),
      );
      return apply(results, scope);
    }
  }
}

const OPERATORS: Readonly<Record<Operator, (left: number, right: number) => number>> = {
  '+': (left, right) => left + right,
  '-': (left, right) => left - right,
  '*': (left, right) => left * right,
  '/': (left, right) => left / right,
  '^': (left, right) => left ** right,
  '==': (left, right) => Number(left === right),
  '!=': (left, right) => Number(left !== right),
  '<': (left, right) => Number(left < right),
  '<=': (left, right) => Number(left <= right),
  '>': (left, right) => Number(left > right),
  '>=': (left, right) => Number(left >= right),
  AND: (left, right) => Number(left !== 0 && right !== 0),
  OR: (left, right) => Number(left !== 0 || right !== 0),
};

function operate(operator: Operator, left: Value, right: Value): Value {
  const combine = OPERATORS[operator];
  if (typeof left === 'number' && typeof right === 'number') return combine(left, right);
  if (isArray(left)) return left.map((series) => operate(operator, series, right) as Series);
  if (isArray(right)) return right.map((series) => operate(operator, left, series) as Series);
  const [series, other] = typeof left === 'number' ? [right as Series, left] : [left, right];
  return series.map((_, index) => {
    const [a, b] = [left, right].map((side) => (typeof side === 'number' ? side : side[index]));
    const isMissing = typeof other === 'number' ? a === undefined || b === undefined : (a ?? b) === undefined;
    return isMissing ? undefined : finite(combine(a ?? 0, b ?? 0));
  });
}

const finite = (value: number): number | undefined => (Number.isFinite(value) ? value : undefined);
const present = (series: Series): readonly number[] => series.filter((value) => value !== undefined);

type Argument = Value | string;
type MathFunction = (results: readonly Argument[], scope: Scope) => Value;

/** Words that are arguments of functions, not ids. */
const KEYWORDS = new Set(['REPEAT']);

/** A function of one time series that applies to each of an array, too. */
const ofEach =
  (name: string, apply: (series: Series) => Series): MathFunction =>
  ([argument]) => {
    if (typeof argument !== 'object') throw new MathError(`${name} needs a time series`);
    return isArray(argument) ? argument.map(apply) : apply(argument);
  };

/**
 * A function of numbers that makes a scalar of one time series, and one time series of an array. Missing values do not
 * count.
 */
const ofAll =
  (name: string, apply: (values: readonly number[]) => number): MathFunction =>
  ([argument], { length }) => {
    if (typeof argument !== 'object') throw new MathError(`${name} needs a time series or an array of them`);
    if (!isArray(argument)) return finite(apply(present(argument))) ?? 0;
    return Array.from({ length }, (_, index) => {
      const values = present(argument.map((series) => series[index]));
      return values.length === 0 ? undefined : apply(values);
    });
  };

const total = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);

const FUNCTIONS: Readonly<Record<string, MathFunction>> = {
  ABS: ofEach('ABS', (series) => series.map((value) => (value === undefined ? undefined : Math.abs(value)))),
  AVG: ofAll('AVG', (values) => total(values) / values.length),
  FILL: fill,
  IF: choose,
  MAX: ofAll('MAX', (values) => Math.max(...values)),
  MIN: ofAll('MIN', (values) => Math.min(...values)),
  RUNNING_SUM: ofEach('RUNNING_SUM', (series) => {
    let sum = 0;
    return series.map((value) => (value === undefined ? undefined : (sum += value)));
  }),
  SUM: ofAll('SUM', total),
};

/** FILL(TS, S | TS | REPEAT). */
function fill([target, filler]: readonly Argument[]): Value {
  const isFiller =
    typeof filler === 'number' || filler === 'REPEAT' || (typeof filler === 'object' && isSeries(filler));
  if (typeof target !== 'object' || !isFiller)
    throw new MathError('FILL needs a time series, and a number, a time series or REPEAT');
  const fillOne = (series: Series): Series => {
    let last: number | undefined;
    return series.map((value, index) => {
      const instead = typeof filler === 'number' ? filler : typeof filler === 'string' ? last : filler[index];
      return (last = value ?? instead);
    });
  };
  return isArray(target) ? target.map(fillOne) : fillOne(target);
}

/** IF(condition, trueValue[, falseValue]), with the rules for missing data of section "Using IF expressions". */
function choose([condition, whenTrue, whenFalse]: readonly Argument[]): Value {
  const isValue = (value: Argument | undefined): value is number | Series =>
    typeof value === 'number' || (typeof value === 'object' && isSeries(value));
  if (!isValue(condition) || !isValue(whenTrue) || !(whenFalse === undefined || isValue(whenFalse)))
    throw new MathError('IF needs a condition, a value and another value: numbers or time series');
  if (typeof condition === 'number') {
    if (condition !== 0) return whenTrue;
    return whenFalse ?? (typeof whenTrue === 'object' ? whenTrue.map(() => undefined) : []);
  }
  const valueAt = (value: number | Series | undefined, index: number): number | undefined =>
    typeof value === 'object' ? value[index] : value;
  return condition.map((test, index) => {
    if (test === undefined) return undefined;
    return test === 0 ? valueAt(whenFalse, index) : (valueAt(whenTrue, index) ?? 0);
  });
}
