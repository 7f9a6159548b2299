import { describe, expect, it } from 'vitest';
import type { Series } from '../../../local/cloudwatch/data-point.ts';
import { parseMath } from '../../../local/cloudwatch/math-parser.ts';
import { evaluateSeries } from '../../../local/cloudwatch/metric-math.ts';
import { evaluateQueries } from '../../../local/cloudwatch/queries.ts';

/** `-` is missing data, as in CloudWatch's documentation. */
const series = (text: string): Series => text.split(' ').map((item) => (item === '-' ? undefined : Number(item)));
const text = (values: Series): string => values.map((value) => value ?? '-').join(' ');

function evaluate(expression: string, metrics: Readonly<Record<string, string>>): string {
  const all = Object.fromEntries(Object.entries(metrics).map(([id, values]) => [id, series(values)]));
  const length = Object.values(all)[0]?.length ?? 0;
  return text(evaluateSeries(parseMath(expression), { length, valueOf: (id) => all[id] ?? [] }));
}

describe('arithmetic', () => {
  it('takes a missing value as 0 if the other time series has one, and as missing otherwise', () => {
    const metrics = { a: '1 2 - -', b: '10 - 20 -' };
    expect(evaluate('a + b', metrics)).toBe('11 2 20 -');
    expect(evaluate('a - b', metrics)).toBe('-9 2 -20 -');
  });

  it('with a number leaves out what is missing', () => {
    expect(evaluate('100 * a', { a: '1 - 3' })).toBe('100 - 300');
    expect(evaluate('-a', { a: '1 - 3' })).toBe('-1 - -3');
  });

  it('drops a quotient by 0', () => {
    expect(evaluate('a / b', { a: '1 2 3', b: '2 0 -' })).toBe('0.5 - -');
  });

  it.each([
    ['a + b * 2', '7'],
    ['(a + b) * 2', '8'],
    ['b - a - a', '1'],
    ['2 * b ^ 2', '18'],
    ['1.5e1 + a', '16'],
    ['a < b AND b >= 3 OR a == 7', '1'],
    ['a > b || a != 1 && b > 1', '0'],
  ])('%s is %s for a = 1 and b = 3', (expression, result) => {
    expect(evaluate(expression, { a: '1', b: '3' })).toBe(result);
  });
});

// the examples of section "Comparison and logical operators"
it.each([
  ['metric1 < metric2', '0 0 1 0'],
  ['metric1 >= 30', '1 0 0 0'],
  ['metric1 > 15 AND metric2 > 15', '1 0 0 0'],
])('%s is as documented', (expression, result) => {
  expect(evaluate(expression, { metric1: '30 20 0 0', metric2: '20 - 20 -' })).toBe(result);
});

// the examples of section "Using IF expressions"
it.each([
  ['IF(metric1, metric2, metric3)', '30 0 20 - -'],
  ['IF(metric1, 5, metric3)', '5 5 20 - -'],
  ['IF(metric1, metric2, 5)', '30 0 5 5 -'],
  ['IF(metric1, metric2)', '30 0 - - -'],
  ['IF(1 > 0, metric2, metric3)', '30 - 0 0 30'],
  ['IF(1 < 0, metric2, metric3)', '0 0 20 - 20'],
  ['IF(1 < 0, metric2)', '- - - - -'],
])('%s is as documented', (expression, result) => {
  expect(evaluate(expression, { metric1: '1 1 0 0 -', metric2: '30 - 0 0 30', metric3: '0 0 20 - 20' })).toBe(result);
});

describe('functions', () => {
  it.each([
    ['FILL(a, 0)', '0 1 0 3'],
    ['FILL(a, b)', '9 1 7 3'],
    ['FILL(a, REPEAT)', '- 1 1 3'],
    ['RUNNING_SUM(a)', '- 1 - 4'],
    ['RUNNING_SUM(FILL(a, 0) - FILL(b, 0))', '-9 -16 -23 -20'],
    ['ABS(a - b)', '9 7 7 3'],
    ['SUM([a, b])', '9 9 7 3'],
    ['MAX([a, b])', '9 8 7 3'],
    ['MIN([a, b])', '9 1 7 3'],
    ['AVG([a, b])', '9 4.5 7 3'],
    ['SUM(FILL([a, b], 0))', '9 9 7 3'],
    ['a - MAX(a)', '- -2 - 0'],
    ['a / SUM(a)', '- 0.25 - 0.75'],
  ])('%s is %s', (expression, result) => {
    expect(evaluate(expression, { a: '- 1 - 3', b: '9 8 7 -' })).toBe(result);
  });

  it('fills a metric that never had data', () => {
    expect(evaluate('FILL(a, 0) + FILL(b, 0)', { a: '- - -', b: '- 1 -' })).toBe('0 1 0');
  });

  it('that are not supported are named', () => {
    expect(() => evaluate('ANOMALY_DETECTION_BAND(a)', { a: '1' })).toThrow(
      'ANOMALY_DETECTION_BAND is not supported: use ABS,',
    );
  });
});

describe('an error says what is wrong', () => {
  it.each([
    ['a +', 'at its end'],
    ['a + ) b', 'at )'],
    ['a ? b', 'at  ? b'],
    ['FILL(a', 'at its end'],
    ['FILL(a 0)', 'at 0'],
    ['a b', 'at b'],
  ])('%s cannot be read %s', (expression, place) => {
    expect(() => parseMath(expression)).toThrow(place);
  });

  it.each([
    ['MAX(a)', 'an expression must result in one time series'],
    ['[a, b]', 'an expression must result in one time series'],
    ['FILL(0, a)', 'FILL needs a time series'],
    ['[a, 1]', 'an array must consist of time series'],
    ['RUNNING_SUM(1)', 'RUNNING_SUM needs a time series'],
    ['IF(a)', 'IF needs a condition'],
  ])('%s: %s', (expression, message) => {
    expect(() => evaluate(expression, { a: '1 2', b: '3 4' })).toThrow(message);
  });
});

describe('the queries of a graph', () => {
  const range = { from: 0, to: 120_000, period: 60_000 };
  const metric = (id: string) => ({
    kind: 'metric' as const,
    id,
    label: id,
    metric: { namespace: 'PingMuc', name: id, dimensions: {} },
    statistic: 'Sum',
  });
  const expression = (id: string, math: string) => ({
    kind: 'expression' as const,
    id,
    label: id,
    expression: parseMath(math),
  });

  it('refer to each other in any order', () => {
    const queries = [expression('twice', '2 * sum'), expression('sum', 'a + b'), metric('a'), metric('b')];
    const results = evaluateQueries(queries, range, ({ name }) => (name === 'a' ? [1, 2] : [10, 20]));
    expect(results.get('twice')).toEqual([22, 44]);
  });

  it('that refer to themselves, or to what is not there, are refused', () => {
    const circle = [expression('x', 'y + 1'), expression('y', 'x + 1')];
    expect(() => evaluateQueries(circle, range, () => [])).toThrow('the expression x refers to itself');
    expect(() => evaluateQueries([expression('x', 'z')], range, () => [])).toThrow('refers to z, which is not there');
  });
});
