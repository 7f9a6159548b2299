import { globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { METRICS, METRIC_NAMESPACE } from '../../functions/names.ts';
import { type Resource, readResources } from '../../local/assembly.ts';

/** What an operator sees: the dashboard, the alarms, and docs/runbook.md. */
let resources: readonly Resource[];
let runbook: string;

const source = (path: string): Promise<string> => readFile(new URL(`../../${path}`, import.meta.url), 'utf8');
const properties = (type: string): Record<string, unknown>[] =>
  resources.filter(({ Type }) => Type === type).map((resource) => resource.Properties);

beforeAll(async () => {
  resources = Object.values(await readResources(process.env['PING_MUC_ASSEMBLY'] ?? ''));
  runbook = await source('docs/runbook.md');
});

describe('the dashboard', () => {
  interface Widget {
    readonly properties: { readonly metrics?: unknown[][] };
  }
  /** Names of our own metrics that are shown, with the dimensions that are asked for. */
  const shown = (): { name: string; dimension: unknown[] }[] => {
    const [dashboard] = properties('AWS::CloudWatch::Dashboard');
    const { widgets } = JSON.parse(String(dashboard?.['DashboardBody'])) as { widgets: Widget[] };
    const metrics = widgets.flatMap((widget) => widget.properties.metrics ?? []);
    return metrics
      .filter(([namespace]) => namespace === METRIC_NAMESPACE)
      .map(([, name, ...dimension]) => ({ name: String(name), dimension: dimension.slice(0, 2) }));
  };

  /** The names in the functions' calls of `measure`, each of which the type of `measure` makes a name of METRICS. */
  const emitted = async (): Promise<Set<string>> => {
    const files = globSync('functions/**/*.ts', { cwd: new URL('../..', import.meta.url).pathname });
    const code = (await Promise.all(files.filter((file) => file !== 'functions/names.ts').map(source))).join('\n');
    return new Set([...code.matchAll(/\b(\w+):/g)].map(([, name]) => String(name)).filter((name) => name in METRICS));
  };

  it('shows every metric that the functions emit, and none that they don’t', async () => {
    expect(new Set(shown().map(({ name }) => name))).toEqual(await emitted());
  });

  it('shows every metric that there is a name for', () => {
    expect(new Set(shown().map(({ name }) => name))).toEqual(new Set(Object.keys(METRICS)));
  });

  it('shows this stack’s metrics alone', () => {
    for (const { dimension } of shown()) expect(dimension).toEqual(['service', 'PingMuc']);
  });
});

describe('the alarms', () => {
  const isOfRelease = (alarm: Record<string, unknown>): boolean => nameOf(alarm).startsWith('Release of ');
  const released = (): Record<string, unknown>[] => properties('AWS::CloudWatch::Alarm').filter(isOfRelease);
  /** Those for operators. */
  const metricAlarms = (): Record<string, unknown>[] =>
    properties('AWS::CloudWatch::Alarm').filter((alarm) => !isOfRelease(alarm));
  const composites = (): Record<string, unknown>[] => properties('AWS::CloudWatch::CompositeAlarm');
  const all = (): Record<string, unknown>[] => [...metricAlarms(), ...composites()];
  const notifying = (): Record<string, unknown>[] => all().filter(({ AlarmActions }) => AlarmActions !== undefined);
  const nameOf = ({ AlarmName }: Record<string, unknown>): string => String(AlarmName).replace('PingMuc: ', '');
  const linked = (): string[] =>
    notifying().map(
      ({ AlarmDescription }) =>
        / https:\/\/github\.com\/ping-muc\/ping-muc\/blob\/main\/docs\/runbook\.md#([a-z-]+)$/.exec(
          String(AlarmDescription),
        )?.[1] ?? `none in: ${String(AlarmDescription)}`,
    );
  const anchorOf = (heading: string): string =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-');
  /** The sections of alarms, each with its heading. What comes after them are procedures. */
  const sections = (): string[] => (runbook.split(/^# Procedures$/m)[0] ?? '').split(/^## /m).slice(1);

  it('each has its heading in docs/runbook.md, and each heading its alarm', () => {
    const headings = sections().map((section) => section.split('\n')[0] ?? '');
    expect(headings).toEqual(expect.arrayContaining(notifying().map(nameOf)));
    expect(headings.map(anchorOf).sort()).toEqual(linked().sort());
  });

  it('each heading has a description, an investigation and a repair', () => {
    for (const section of sections()) {
      expect(
        [...section.matchAll(/^### (.*)$/gm)].map(([, heading]) => heading),
        section.split('\n')[0],
      ).toEqual(['Description', 'Investigation', 'Repair']);
    }
  });

  it('each states its severity and what users notice, and notifies when it is raised and when it is over', () => {
    for (const { AlarmName, AlarmDescription, AlarmActions, OKActions } of notifying()) {
      expect(AlarmName).toMatch(/^PingMuc: /);
      expect(AlarmDescription).toMatch(/^Severity (high|low)\. \S.{20,}\. What to do: https:\/\/\S+#[a-z-]+$/);
      expect(AlarmActions).toHaveLength(1);
      expect(OKActions).toEqual(AlarmActions);
    }
  });

  it('are few, and the page says of each how severe it is', () => {
    expect(notifying().length).toBeLessThanOrEqual(17);
    for (const alarm of notifying()) {
      const [, severity = ''] = /^Severity (\w+)/.exec(String(alarm['AlarmDescription'])) ?? [];
      const section = sections().find((text) => text.startsWith(`${nameOf(alarm)}\n`));
      expect(section, nameOf(alarm)).toMatch(
        new RegExp(`### Description\n\n${severity === 'high' ? 'High' : 'Low'}: `),
      );
    }
  });

  it('of conditions notify nobody, and belong to one alarm that does', () => {
    const conditions = all().filter(({ AlarmActions }) => AlarmActions === undefined);
    expect(conditions.length).toBeGreaterThan(3);
    const owners = conditions.map((alarm) => {
      const name = nameOf(alarm);
      expect(alarm['OKActions']).toBeUndefined();
      const owner = composites().find((one) => name.startsWith(`${nameOf(one)}, `));
      expect(String(owner?.['AlarmRule']), name).toContain(`ALARM("${String(alarm['AlarmName'])}")`);
      return nameOf(owner ?? {});
    });
    expect([...new Set(owners)].sort()).toEqual(composites().map(nameOf).sort());
  });

  it('depend only on alarms on metrics, which are made before them, so never on each other', () => {
    const names = metricAlarms().map(({ AlarmName }) => String(AlarmName));
    for (const { AlarmRule } of composites()) {
      const cited = [...String(AlarmRule).matchAll(/ALARM\("([^"]+)"\)/g)].map(([, name = '']) => name);
      expect(cited.length).toBeGreaterThan(1);
      expect(cited.filter((name) => !names.includes(name))).toEqual([]);
      const outside = String(AlarmRule).replaceAll(/ALARM\("[^"]+"\)/g, '');
      expect(outside).toMatch(/^(?:AND|OR|NOT|[() ])+$/);
    }
    const dependent = resources.filter(({ Type }) => Type === 'AWS::CloudWatch::CompositeAlarm');
    for (const { DependsOn } of dependent as readonly (Resource & { DependsOn?: string[] })[])
      expect(DependsOn?.length).toBeGreaterThan(1);
  });

  it('one fault calls once: what only follows from another alarm’s cause is silent while that alarm is raised', () => {
    const ruleOf = (title: string): string => String(composites().find((one) => nameOf(one) === title)?.['AlarmRule']);
    const silencedBy = (title: string): string[] =>
      [...(ruleOf(title).split('AND NOT')[1] ?? '').matchAll(/"PingMuc: ([^"]+)"/g)].map(([, name = '']) => name);
    expect(silencedBy('A server is silent')).toEqual([
      'Webhooks fail',
      'Signatures are rejected',
      'Server is out of reach',
    ]);
    expect(silencedBy('Objective: fast burn')).toEqual([
      'Server is out of reach',
      'Checks fail',
      'Webhooks fail',
      'A check is held',
    ]);
    expect(silencedBy('Check function fails')).toEqual(['Check function fails, interruptions', 'Checks take too long']);
    expect(silencedBy('Checks are late')).toEqual([
      'Webhooks fail',
      'Server is out of reach',
      'Check function is throttled',
      'Checks take too long',
      'Check function fails, faults',
      'Check function fails, errors',
    ]);
  });

  it('look at no more than CloudWatch evaluates: a day, and a period of an hour or more for longer', () => {
    for (const alarm of metricAlarms()) {
      const metrics = (alarm['Metrics'] ?? []) as { MetricStat?: { Period: number }; Period?: number }[];
      const periods = new Set(
        [alarm['Period'], ...metrics.map(({ MetricStat, Period }) => MetricStat?.Period ?? Period)].filter(
          (period) => period !== undefined,
        ),
      );
      expect(periods.size, nameOf(alarm)).toBe(1); // the metrics of one expression have one period
      const seconds = Number([...periods][0]) * Number(alarm['EvaluationPeriods']);
      expect(seconds, nameOf(alarm)).toBeLessThanOrEqual(86_400);
    }
  });

  /** How far an alarm looks back, in minutes, and how many of its periods must be above the threshold. */
  const looks = (title: string): { minutes: number; least: number } => {
    const alarm = metricAlarms().find((one) => nameOf(one) === title) ?? {};
    const metrics = (alarm['Metrics'] ?? []) as { MetricStat?: { Period: number } }[];
    const period = alarm['Period'] ?? metrics.find(({ MetricStat }) => MetricStat !== undefined)?.MetricStat?.Period;
    const [all = 0, least = 0] = [alarm['EvaluationPeriods'], alarm['DatapointsToAlarm']].map(Number);
    return { minutes: (Number(period) * all) / 60, least };
  };

  it('see data that is stamped with the start of what it tells of, or arrives late', () => {
    // Lambda counts an invocation of 15 minutes at its start
    expect(looks('Checks take too long')).toEqual({ minutes: 30, least: 1 });
    expect(looks('Checks fail')).toEqual({ minutes: 60, least: 1 });
    // the server's own errors count for longer than Lambda's, so they never count as a fault of the function
    expect(looks('Check function fails, interruptions').minutes).toBeGreaterThan(
      looks('Check function fails, errors').minutes,
    );
    expect(looks('Check function fails, interruptions').least).toBe(1);
    expect(looks('Check function fails, errors').least).toBeGreaterThan(1);
  });

  it('never subtract what Lambda counts from what the functions count, which is stamped at another time', () => {
    for (const { Metrics = [] } of metricAlarms()) {
      const stated = Metrics as { MetricStat?: { Metric: { Namespace: string } } }[];
      const namespaces = new Set(stated.flatMap(({ MetricStat }) => MetricStat?.Metric.Namespace ?? []));
      expect(namespaces.has(METRIC_NAMESPACE) && namespaces.size > 1).toBe(false);
    }
  });

  it('of releases notify nobody, and take each function’s new version back', () => {
    const groups = properties('AWS::CodeDeploy::DeploymentGroup') as {
      AlarmConfiguration: { Alarms: { Name: string }[] };
      AutoRollbackConfiguration: { Enabled: boolean; Events: string[] };
    }[];
    const watched = groups.flatMap(({ AlarmConfiguration }) => AlarmConfiguration.Alarms.map(({ Name }) => Name));
    expect(released().map(({ AlarmName }) => AlarmName)).toEqual(watched);
    expect(released().map(nameOf)).toEqual(['Release of the webhook function', 'Release of the check function']);
    for (const { AlarmActions, OKActions } of released())
      expect([AlarmActions, OKActions]).toEqual([undefined, undefined]);
    for (const { AutoRollbackConfiguration } of groups)
      expect(AutoRollbackConfiguration).toMatchObject({
        Enabled: true,
        Events: expect.arrayContaining(['DEPLOYMENT_FAILURE', 'DEPLOYMENT_STOP_ON_ALARM']) as string[],
      });
  });

  it('silence alarms only where it says that a sender is dead', () => {
    const silent = metricAlarms().filter(({ TreatMissingData }) => TreatMissingData === 'breaching');
    expect(silent.map(nameOf)).toEqual(['A server is silent, silence']);
  });

  it('about the objective ask for a long and a short window, and for more than a few late notices', () => {
    const burns = metricAlarms().filter((alarm) => nameOf(alarm).startsWith('Objective: '));
    const seen = burns.map((alarm) => {
      const expressions = (alarm['Metrics'] as { Expression?: string }[]).flatMap(({ Expression }) => Expression ?? []);
      return [nameOf(alarm), looks(nameOf(alarm)).minutes, alarm['Threshold'], ...expressions];
    });
    const beyond = (share: number): string => `FILL(late, 0) - ${share} * (FILL(late, 0) + FILL(inTime, 0))`;
    expect(seen).toEqual([
      ['Objective: fast burn, hour', 60, 10, beyond(0.144)],
      ['Objective: fast burn, minutes', 30, 0, beyond(0.144)],
      ['Objective: slow burn, day', 1440, 10, beyond(0.03)],
      ['Objective: slow burn, hours', 120, 0, beyond(0.03)],
    ]);
  });
});

describe('the saved queries', () => {
  it('are named for the stack, and ask only for fields that the functions log', async () => {
    const queries = properties('AWS::Logs::QueryDefinition');
    expect(queries.length).toBeGreaterThan(4);
    const code = (
      await Promise.all(
        ['webhook.ts', 'check.ts', 'adapters/telemetry.ts', 'core/check.ts'].map((file) => source(`functions/${file}`)),
      )
    ).join('\n');
    const access = String(
      properties('AWS::ApiGatewayV2::Stage').map(
        ({ AccessLogSettings }) => (AccessLogSettings as { Format: string }).Format,
      ),
    );
    for (const { Name, QueryString } of queries) {
      expect(Name).toMatch(/^PingMuc\//);
      const fields = /^fields (.*)$/m.exec(String(QueryString))?.[1]?.split(', ') ?? [];
      for (const field of fields.filter((name) => !name.startsWith('@') && name !== 'type')) {
        expect(`${code}${access}`, `${String(Name)}: ${field}`).toMatch(
          new RegExp(`\\b${String(field.split('.').at(-1))}\\b`),
        );
      }
    }
  });

  it('are named in docs/runbook.md as they are', () => {
    const names = properties('AWS::Logs::QueryDefinition').map(({ Name }) => String(Name).replace('PingMuc/', ''));
    const cited = [...runbook.matchAll(/query\s+\*([^*]+)\*/gi)].map(([, name]) => String(name));
    expect(cited.length).toBeGreaterThan(0);
    expect([...new Set(cited)].filter((name) => !names.includes(name))).toEqual([]);
    expect(names.filter((name) => !cited.includes(name))).toEqual([]);
  });
});
