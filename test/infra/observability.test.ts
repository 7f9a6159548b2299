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
    const files = ['functions/webhook.ts', 'functions/check.ts', 'functions/adapters/host-watch.ts'];
    const code = (await Promise.all(files.map(source))).join('\n');
    return new Set([...code.matchAll(/\b(\w+):/g)].map(([, name]) => String(name)).filter((name) => name in METRICS));
  };

  it('shows every metric that the handlers emit, and none that they don’t', async () => {
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
  const linked = (): string[] =>
    properties('AWS::CloudWatch::Alarm').map(
      ({ AlarmDescription }) =>
        / https:\/\/github\.com\/ping-muc\/ping-muc\/blob\/main\/docs\/runbook\.md#([a-z-]+)$/.exec(
          String(AlarmDescription),
        )?.[1] ?? `none in: ${String(AlarmDescription)}`,
    );
  const headings = (): string[] => [...runbook.matchAll(/^## (.*)$/gm)].map(([, heading]) => String(heading));

  it('each has its heading in docs/runbook.md, and each heading its alarm', () => {
    expect(
      headings()
        .map((heading) => heading.toLowerCase().replaceAll(' ', '-'))
        .sort(),
    ).toEqual(linked().sort());
  });

  it('each heading has a description, an investigation and a repair', () => {
    for (const section of runbook.split(/^## /m).slice(1)) {
      expect(
        [...section.matchAll(/^### (.*)$/gm)].map(([, heading]) => heading),
        section.split('\n')[0],
      ).toEqual(['Description', 'Investigation', 'Repair']);
    }
  });

  it('each states its severity and what users notice, and notifies when it is raised and when it is over', () => {
    for (const { AlarmName, AlarmDescription, AlarmActions, OKActions } of properties('AWS::CloudWatch::Alarm')) {
      expect(AlarmName).toMatch(/^PingMuc: /);
      expect(AlarmDescription).toMatch(/^Severity (high|low)\. \S.{20,}\. What to do: https:\/\/\S+#[a-z-]+$/);
      expect(AlarmActions).toHaveLength(1);
      expect(OKActions).toEqual(AlarmActions);
    }
  });

  it('silence alarms only where it says that a sender is dead', () => {
    const silent = properties('AWS::CloudWatch::Alarm').filter(
      ({ TreatMissingData }) => TreatMissingData === 'breaching',
    );
    expect(silent.map(({ AlarmName }) => AlarmName)).toEqual(['PingMuc: No webhook for long']);
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
