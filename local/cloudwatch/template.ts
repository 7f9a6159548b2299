import type { Resource } from '../assembly.ts';
import { type Rule, alarmsIn, parseRule } from './alarm-rule.ts';
import { COMPARISONS, type Comparison, type MetricAlarm, type MissingData } from './alarms.ts';
import type { MetricId } from './data-point.ts';
import { type Widget, readWidgets } from './dashboard.ts';
import { parseMath } from './math-parser.ts';
import { checkStatistic } from './metric-store.ts';
import type { Query } from './queries.ts';
import type { AlarmState } from './views.ts';

/** The alarms and the dashboard of the synthesized stack. */
export interface Monitoring {
  readonly alarms: readonly AlarmDefinition[];
  /** Composite alarms, each after those that it refers to. */
  readonly composites: readonly CompositeDefinition[];
  readonly widgets: readonly Widget[];
}

interface Described {
  readonly name: string;
  readonly description: string;
  /** The ARNs to notify when the alarm enters a state. */
  readonly actions: Readonly<Record<AlarmState, readonly string[]>>;
}

export type AlarmDefinition = Described & MetricAlarm;
export type CompositeDefinition = Described & { readonly rule: Rule };

type Properties = Readonly<Record<string, unknown>>;

/**
 * Reads alarms and dashboards.
 *
 * @param resources with their references resolved, as `readResources` returns them
 * @throws if one of them uses what is not supported here; the message names it
 */
export function readMonitoring(resources: Readonly<Record<string, Resource>>): Monitoring {
  const all = Object.entries(resources);
  const ofType = <T>(type: string, read: (properties: Properties, id: string) => T): readonly T[] =>
    all.filter(([, resource]) => resource.Type === type).map(([id, resource]) => read(resource.Properties, id));
  const alarms = ofType('AWS::CloudWatch::Alarm', readAlarm);
  const composites = ofType('AWS::CloudWatch::CompositeAlarm', readComposite);
  const widgets = ofType('AWS::CloudWatch::Dashboard', ({ DashboardBody }) => readWidgets(String(DashboardBody)));
  return { alarms, composites: inOrder(composites, new Set(alarms.map(({ name }) => name))), widgets: widgets.flat() };
}

function readDescribed(properties: Properties, id: string): Described {
  const actions = (name: string): readonly string[] =>
    properties['ActionsEnabled'] === false ? [] : ((properties[name] as readonly string[] | undefined) ?? []);
  return {
    name: (properties['AlarmName'] as string | undefined) ?? id,
    description: (properties['AlarmDescription'] as string | undefined) ?? '',
    actions: {
      ALARM: actions('AlarmActions'),
      OK: actions('OKActions'),
      INSUFFICIENT_DATA: actions('InsufficientDataActions'),
    },
  };
}

function readAlarm(properties: Properties, id: string): AlarmDefinition {
  const described = readDescribed(properties, id);
  try {
    const { queries, evaluated, periodSeconds } = readAlarmQueries(properties);
    const comparison = String(properties['ComparisonOperator']);
    if (!(comparison in COMPARISONS)) throw new Error(`the comparison operator ${comparison} is not supported`);
    if (!(periodSeconds > 0) || periodSeconds % 60 !== 0)
      throw new Error(`the period of ${periodSeconds} s is no multiple of a minute`);
    const evaluationPeriods = Number(properties['EvaluationPeriods']);
    return {
      ...described,
      queries,
      evaluated,
      comparison: comparison as Comparison,
      threshold: Number(properties['Threshold']),
      period: periodSeconds * 1000,
      evaluationPeriods,
      datapointsToAlarm: Number(properties['DatapointsToAlarm'] ?? evaluationPeriods),
      missingData: (properties['TreatMissingData'] ?? missingByDefault(queries)) as MissingData,
    };
  } catch (error) {
    throw new Error(`alarm "${described.name}": ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

/** Alarms on DynamoDB's metrics ignore missing data unless they say otherwise (same page as in alarms.ts). */
const missingByDefault = (queries: readonly Query[]): MissingData =>
  queries.some((query) => query.kind === 'metric' && query.metric.namespace === 'AWS/DynamoDB') ? 'ignore' : 'missing';

interface AlarmQueries {
  readonly queries: readonly Query[];
  readonly evaluated: string;
  readonly periodSeconds: number;
}

interface MetricProperties {
  readonly Namespace?: string;
  readonly MetricName?: string;
  readonly Dimensions?: readonly { readonly Name: string; readonly Value: string }[];
}

/** An element of `Metrics`, in CloudFormation's form. */
interface DataQuery {
  readonly Id: string;
  readonly Label?: string;
  readonly ReturnData?: boolean;
  readonly Expression?: string;
  readonly Period?: number;
  readonly MetricStat?: { readonly Metric: MetricProperties; readonly Period: number; readonly Stat: string };
}

function readAlarmQueries(properties: Properties): AlarmQueries {
  const several = properties['Metrics'] as readonly DataQuery[] | undefined;
  if (several === undefined) {
    const statistic = String(properties['Statistic'] ?? properties['ExtendedStatistic']);
    const query = metricQuery('m', undefined, properties, statistic);
    return { queries: [query], evaluated: query.id, periodSeconds: Number(properties['Period']) };
  }
  const queries = several.map(({ Id, Label, Expression, MetricStat }) =>
    MetricStat === undefined
      ? expressionQuery(Id, Label, Expression ?? '')
      : metricQuery(Id, Label, MetricStat.Metric, MetricStat.Stat),
  );
  const returned = several.filter(({ ReturnData }) => ReturnData !== false);
  if (returned.length !== 1) throw new Error('one element of Metrics must have ReturnData');
  const periods = several.map(({ MetricStat, Period }) => MetricStat?.Period ?? Period ?? 0);
  return { queries, evaluated: returned[0]?.Id ?? '', periodSeconds: Math.max(...periods) };
}

const metricQuery = (id: string, label: string | undefined, metric: MetricProperties, statistic: string): Query => {
  checkStatistic(statistic);
  return { kind: 'metric', id, label: label ?? String(metric.MetricName), metric: metricId(metric), statistic };
};

const metricId = ({ Namespace = '', MetricName = '', Dimensions = [] }: MetricProperties): MetricId => ({
  namespace: Namespace,
  name: MetricName,
  dimensions: Object.fromEntries(Dimensions.map(({ Name, Value }) => [Name, Value])),
});

const expressionQuery = (id: string, label: string | undefined, text: string): Query => ({
  kind: 'expression',
  id,
  label: label ?? id,
  expression: parseMath(text),
});

const readComposite = (properties: Properties, id: string): CompositeDefinition => ({
  ...readDescribed(properties, id),
  rule: parseRule(String(properties['AlarmRule'])),
});

/** @throws if a rule names an alarm that is not there, or if rules name each other in a circle */
function inOrder(composites: readonly CompositeDefinition[], known: Set<string>): readonly CompositeDefinition[] {
  const ordered: CompositeDefinition[] = [];
  let rest = composites;
  while (rest.length > 0) {
    const ready = rest.filter(({ rule }) => alarmsIn(rule).every((name) => known.has(name)));
    if (ready.length === 0) {
      const missing = rest.flatMap(({ rule }) => alarmsIn(rule)).filter((name) => !known.has(name));
      throw new Error(`composite alarms name alarms that are not there, or each other: ${missing.join(', ')}`);
    }
    ordered.push(...ready);
    for (const { name } of ready) known.add(name);
    rest = rest.filter((composite) => !ready.includes(composite));
  }
  return ordered;
}
