import type { MetricId, Series } from './data-point.ts';
import { type Expression, MathError } from './math-parser.ts';
import { type Scope, evaluateSeries } from './metric-math.ts';

/** A metric with a statistic, or an expression, as an alarm or a graph refers to it. */
export type Query = {
  /** Unique among the queries of an alarm or a graph; expressions refer to it. */
  readonly id: string;
  readonly label: string;
} & (
  | { readonly kind: 'metric'; readonly metric: MetricId; readonly statistic: string }
  | { readonly kind: 'expression'; readonly expression: Expression }
);

/** The periods for which queries are evaluated. Times are in milliseconds. */
export interface Range {
  readonly from: number;
  readonly to: number;
  readonly period: number;
}

/** Reads a metric, as `MetricStore.series` does. */
export type ReadSeries = (metric: MetricId, statistic: string, from: number, to: number, period: number) => Series;

/**
 * The series of each query, by id.
 *
 * @throws MathError if an expression refers to itself or to an id that is not there, or is not supported
 */
export function evaluateQueries(
  queries: readonly Query[],
  { from, to, period }: Range,
  read: ReadSeries,
): ReadonlyMap<string, Series> {
  const results = new Map<string, Series>();
  const begun = new Set<string>();
  const scope: Scope = { length: Math.ceil((to - from) / period), valueOf };

  function valueOf(id: string): Series {
    const known = results.get(id);
    if (known !== undefined) return known;
    const query = queries.find((candidate) => candidate.id === id);
    if (query === undefined) throw new MathError(`an expression refers to ${id}, which is not there`);
    if (begun.has(id)) throw new MathError(`the expression ${id} refers to itself`);
    begun.add(id);
    const series =
      query.kind === 'metric'
        ? read(query.metric, query.statistic, from, to, period)
        : evaluateSeries(query.expression, scope);
    results.set(id, series);
    return series;
  }

  for (const { id } of queries) valueOf(id);
  return results;
}
