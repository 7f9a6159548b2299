import { alarmName } from './alarm-rule.ts';
import { parseMath } from './math-parser.ts';
import { checkStatistic } from './metric-store.ts';
import { type Query, type ReadSeries, evaluateQueries } from './queries.ts';
import type { WidgetView } from './views.ts';

/**
 * A dashboard's body, and its widgets with data.
 *
 * "Dashboard Body Structure and Syntax":
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
 */
export type Widget = Exclude<WidgetView, { readonly kind: 'graph' }> | GraphWidget;

type GraphWidget = Omit<Extract<WidgetView, { readonly kind: 'graph' }>, 'lines'> & {
  readonly queries: readonly (Query & { readonly axis: 'left' | 'right'; readonly isVisible: boolean })[];
  /** Milliseconds; undefined if it adapts to the range that is shown. */
  readonly period: number | undefined;
};

interface Body {
  readonly periodOverride?: 'auto' | 'inherit';
  readonly widgets: readonly {
    readonly type: string;
    readonly x: number;
    readonly y: number;
    readonly width: number;
    readonly height: number;
    readonly properties: Properties;
  }[];
}

interface Properties {
  readonly title?: string;
  readonly markdown?: string;
  readonly alarms?: readonly string[];
  readonly annotations?: { readonly alarms?: readonly string[] };
  readonly metrics?: readonly MetricRow[];
  readonly stacked?: boolean;
  readonly period?: number;
  readonly stat?: string;
}

/** Namespace, name, and names and values of dimensions, and then options. An expression has only options. */
type MetricRow = readonly (string | Options)[];

interface Options {
  readonly id?: string;
  readonly label?: string;
  readonly expression?: string;
  readonly stat?: string;
  readonly yAxis?: 'left' | 'right';
  readonly visible?: boolean;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DEFAULT_PERIOD_SECONDS = 300;

/** @throws if an expression or a statistic is not supported */
export function readWidgets(dashboardBody: string): readonly Widget[] {
  const { widgets, periodOverride } = JSON.parse(dashboardBody) as Body;
  return widgets.map(({ type, x, y, width, height, properties }): Widget => {
    const place = { x, y, width, height };
    const { title = '', markdown = '', metrics, alarms = properties.annotations?.alarms } = properties;
    if (type === 'text') return { ...place, kind: 'text', markdown };
    if (type === 'alarm' || (metrics === undefined && alarms !== undefined))
      return { ...place, kind: 'alarms', title, alarms: (alarms ?? []).map(alarmName) };
    if (type !== 'metric' || metrics === undefined)
      return { ...place, kind: 'text', markdown: `**${title}**\n\nWidgets of type ${type} are shown on AWS only.` };
    const period = (properties.period ?? DEFAULT_PERIOD_SECONDS) * 1000;
    return {
      ...place,
      kind: 'graph',
      title,
      isStacked: properties.stacked ?? false,
      queries: readGraph(metrics, properties.stat ?? 'Average'),
      period: periodOverride === 'inherit' ? period : undefined,
    };
  });
}

function readGraph(rows: readonly MetricRow[], statistic: string): GraphWidget['queries'] {
  let previous: readonly string[] = [];
  return rows.map((row, index) => {
    const last = row.at(-1);
    const options: Options = typeof last === 'object' ? last : {};
    const names = expand(
      row.filter((item) => typeof item === 'string'),
      previous,
    );
    const common = {
      id: options.id ?? `line ${index}`,
      axis: options.yAxis ?? 'left',
      isVisible: options.visible ?? true,
    };
    if (options.expression !== undefined) {
      const label = options.label ?? options.expression;
      return { ...common, kind: 'expression', label, expression: parseMath(options.expression) };
    }
    previous = names;
    const [namespace = '', name = '', ...rest] = names;
    const pairs = rest.flatMap((item, at) => (at % 2 === 0 ? [[item, rest[at + 1] ?? ''] as const] : []));
    const stat = options.stat ?? statistic;
    checkStatistic(stat);
    const metric = { namespace, name, dimensions: Object.fromEntries(pairs) };
    return { ...common, kind: 'metric', label: options.label ?? name, metric, statistic: stat };
  });
}

/** `.` stands for the same item of the row before, and `...` for as many of its items as are missing. */
function expand(names: readonly string[], previous: readonly string[]): readonly string[] {
  const skipped = names.indexOf('...');
  const whole =
    skipped < 0
      ? names
      : [
          ...names.slice(0, skipped),
          ...previous.slice(skipped, previous.length - (names.length - skipped - 1)),
          ...names.slice(skipped + 1),
        ];
  return whole.map((name, index) => (name === '.' ? (previous[index] ?? name) : name));
}

/** The period for a range, if the dashboard adapts to it: a minute, five minutes, or an hour. Milliseconds. */
function adaptedPeriod(length: number): number {
  if (length <= 3 * HOUR) return MINUTE;
  return length <= 25 * HOUR ? 5 * MINUTE : HOUR;
}

/**
 * A widget with its data. The first period contains `from`, and the last one `to`.
 *
 * @throws MathError if an expression cannot be evaluated
 */
export function viewOf(widget: Widget, from: number, to: number, read: ReadSeries): WidgetView {
  if (widget.kind !== 'graph') return widget;
  const { queries, period = adaptedPeriod(to - from), ...rest } = widget;
  const start = from - (from % period);
  const series = evaluateQueries(queries, { from: start, to: Math.ceil(to / period) * period, period }, read);
  const lines = queries
    .filter(({ isVisible }) => isVisible)
    .map(({ id, label, axis }) => ({ label, axis, points: pointsOf(series.get(id) ?? [], start, period) }));
  return { ...rest, lines };
}

/** The values that are there, with the start of their period. */
export function pointsOf(
  series: readonly (number | undefined)[],
  from: number,
  period: number,
): { readonly at: number; readonly value: number }[] {
  return series.flatMap((value, index) => (value === undefined ? [] : [{ at: from + index * period, value }]));
}
