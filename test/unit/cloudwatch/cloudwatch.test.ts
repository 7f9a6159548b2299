import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type LocalCloudWatch, openCloudWatch } from '../../../local/cloudwatch/cloudwatch.ts';
import { readMonitoring } from '../../../local/cloudwatch/template.ts';

vi.setConfig({ testTimeout: 30_000 }); // real parts, which are slow on a busy machine

const MINUTE = 60_000;
const NOON = Date.UTC(2027, 0, 15, 12);

const alarm = (name: string, more: object = {}) => ({
  Type: 'AWS::CloudWatch::Alarm',
  Properties: {
    AlarmName: name,
    AlarmDescription: `About ${name}.`,
    Namespace: 'PingMuc',
    MetricName: name,
    Dimensions: [{ Name: 'service', Value: 'PingMuc' }],
    Statistic: 'Sum',
    Period: 60,
    EvaluationPeriods: 1,
    Threshold: 0,
    ComparisonOperator: 'GreaterThanThreshold',
    TreatMissingData: 'notBreaching',
    AlarmActions: ['arn:topic'],
    ...more,
  } as Record<string, unknown>,
});
const composite = (name: string, rule: string) => ({
  Type: 'AWS::CloudWatch::CompositeAlarm',
  Properties: { AlarmName: name, AlarmRule: rule } as Record<string, unknown>,
});
const dashboard = (widgets: readonly object[], more: object = {}) => ({
  Type: 'AWS::CloudWatch::Dashboard',
  Properties: { DashboardBody: JSON.stringify({ widgets, ...more }) } as Record<string, unknown>,
});
const widget = (type: string, properties: object) => ({ type, x: 1, y: 2, width: 8, height: 6, properties });

let directory: string;
let now: number;
let lines: Record<string, unknown>[];
let cloudWatch: LocalCloudWatch;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ping-muc-unit-'));
  now = NOON;
  lines = [];
});
afterEach(async () => {
  await cloudWatch.close();
  rmSync(directory, { recursive: true, force: true });
});

function open(resources: Record<string, ReturnType<typeof alarm>>): void {
  cloudWatch = openCloudWatch({
    directory,
    monitoring: readMonitoring(resources),
    log: (line) => lines.push(JSON.parse(line) as Record<string, unknown>),
    now: () => now,
  });
}
const record = (name: string, value: number, at = now): void =>
  cloudWatch.record([{ namespace: 'PingMuc', name, dimensions: { service: 'PingMuc' }, at, values: [value] }]);
/** The next minute begins, and alarms are evaluated. */
function nextMinute(): void {
  now += MINUTE;
  cloudWatch.evaluate();
}
const states = (): Record<string, string> =>
  Object.fromEntries(cloudWatch.alarms().map(({ name, state }) => [name, state]));
const changes = (): string[] =>
  lines.map(({ alarm: name, from, to }) => `${String(name)}: ${String(from)} → ${String(to)}`);

describe('alarms', () => {
  it('change with the metric, each change is logged once and kept, and the first OK is not logged', () => {
    open({ A: alarm('Failures') });
    expect(cloudWatch.alarms()).toMatchObject([
      { state: 'INSUFFICIENT_DATA', since: NOON, reason: 'not evaluated yet' },
    ]);
    nextMinute();
    record('Failures', 2);
    nextMinute();
    record('Failures', 1);
    // two more minutes are read than are evaluated, so the last datapoint counts until it leaves these
    for (let minute = 0; minute < 4; minute += 1) nextMinute();
    expect(changes()).toEqual(['Failures: OK → ALARM', 'Failures: ALARM → OK']);
    expect(lines[0]).toMatchObject({ level: 'WARN', message: 'alarm changed' });
    expect(lines[0]?.['reason']).toContain('newest first: 2');
    expect(cloudWatch.transitions().map(({ from, to, at }) => [from, to, at])).toEqual([
      ['ALARM', 'OK', NOON + 6 * MINUTE],
      ['OK', 'ALARM', NOON + 2 * MINUTE],
      ['INSUFFICIENT_DATA', 'OK', NOON + MINUTE],
    ]);
  });

  it('show since when and why, the threshold, and the metric', () => {
    open({ A: alarm('Failures') });
    for (const value of [0, 3, 4]) {
      record('Failures', value);
      nextMinute();
    }
    expect(cloudWatch.alarms()).toEqual([
      {
        name: 'Failures',
        description: 'About Failures.',
        state: 'ALARM',
        since: NOON + 2 * MINUTE,
        reason: '1 of 1 datapoints are greater than 0 (newest first: 4); 1 of 1 raise the alarm',
        isComposite: false,
        notifies: true,
        threshold: 0,
        lines: [
          {
            label: 'Failures',
            axis: 'left',
            points: [0, 3, 4].map((value, index) => ({ at: NOON + index * MINUTE, value })),
          },
        ],
      },
    ]);
  });

  it('keep their state and its age when the runtime starts again', async () => {
    open({ A: alarm('Failures'), B: alarm('Gone') });
    record('Failures', 1);
    nextMinute();
    await cloudWatch.close();
    now += 10 * MINUTE;
    open({ A: alarm('Failures') });
    expect(cloudWatch.alarms()).toMatchObject([{ state: 'ALARM', since: NOON + MINUTE }]);
    nextMinute();
    expect(changes()).toEqual(['Failures: INSUFFICIENT_DATA → ALARM', 'Failures: ALARM → OK']);
    await cloudWatch.close();
    open({ B: alarm('Gone') });
    expect(cloudWatch.alarms()).toMatchObject([{ state: 'INSUFFICIENT_DATA' }]); // was forgotten meanwhile
  });

  it('keep their last thousand changes', () => {
    open({ A: alarm('Failures') });
    for (let index = 0; index < 1003; index += 1) {
      record('Failures', index % 2);
      nextMinute();
    }
    const kept = cloudWatch.transitions();
    expect(kept).toHaveLength(1000);
    expect([kept[0]?.at, kept.at(-1)?.at]).toEqual([NOON + 1003 * MINUTE, NOON + 4 * MINUTE]);
  });

  it('can be math on several metrics', () => {
    const metric = (Id: string, MetricName: string) => ({
      Id,
      ReturnData: false,
      MetricStat: {
        Metric: { Namespace: 'PingMuc', MetricName, Dimensions: [{ Name: 'service', Value: 'PingMuc' }] },
        Period: 60,
        Stat: 'Sum',
      },
    });
    const Metrics = [
      { Id: 'e', Expression: 'FILL(errors, 0) - FILL(busy, 0)', Label: 'errors that count' },
      metric('errors', 'Errors'),
      metric('busy', 'Busy'),
    ];
    open({ A: alarm('Failures', { Metrics, Namespace: undefined, Period: undefined }) });
    record('Errors', 2);
    record('Busy', 2);
    nextMinute();
    expect(states()).toEqual({ Failures: 'OK' });
    record('Errors', 2);
    record('Busy', 1);
    nextMinute();
    expect(states()).toEqual({ Failures: 'ALARM' });
    const lasts = cloudWatch.alarms()[0]?.lines.map(({ label, points }) => [label, points.at(-1)?.value]);
    expect(lasts).toEqual([
      ['errors that count', 1],
      ['Errors', 2],
      ['Busy', 1],
    ]);
  });

  it('on DynamoDB ignore missing data by default', () => {
    const onTable = { Namespace: 'AWS/DynamoDB', TreatMissingData: undefined };
    open({ A: alarm('Throttled', onTable), B: alarm('Other', { TreatMissingData: undefined }) });
    for (const name of ['Throttled', 'Other'])
      cloudWatch.record([
        {
          namespace: name === 'Other' ? 'PingMuc' : 'AWS/DynamoDB',
          name,
          dimensions: { service: 'PingMuc' },
          at: now,
          values: [1],
        },
      ]);
    for (let minute = 0; minute < 5; minute += 1) nextMinute();
    expect(states()).toEqual({ Throttled: 'ALARM', Other: 'INSUFFICIENT_DATA' });
  });

  it('that are composite follow the others, in any order of the template', () => {
    open({
      Any: composite('Any', 'ALARM("Both") OR ALARM("B")'),
      Both: composite('Both', 'ALARM("A") AND ALARM("B")'),
      A: alarm('A'),
      B: alarm('B'),
    });
    record('A', 1);
    nextMinute();
    expect(states()).toEqual({ A: 'ALARM', B: 'OK', Both: 'OK', Any: 'OK' });
    for (const name of ['A', 'B']) record(name, 1);
    nextMinute();
    expect(states()).toEqual({ A: 'ALARM', B: 'ALARM', Both: 'ALARM', Any: 'ALARM' });
    const one = '1 of 1 datapoints are greater than 0 (newest first: 1); 1 of 1 raise the alarm';
    const both = { isComposite: true, lines: [], reason: `its rule is true. A: ${one}. B: ${one}` };
    expect(cloudWatch.alarms().find(({ name }) => name === 'Both')).toMatchObject(both);
    expect(cloudWatch.alarms().at(-1)).not.toHaveProperty('threshold');
  });
});

describe('a template that uses what is not supported', () => {
  const refused = (resources: Record<string, ReturnType<typeof alarm>>, message: string): void => {
    expect(() => readMonitoring(resources)).toThrow(message);
  };

  it('is refused, with the name of the alarm', () => {
    open({});
    refused(
      { A: alarm('Slow', { Statistic: undefined, ExtendedStatistic: 'tm90' }) },
      'alarm "Slow": the statistic tm90',
    );
    refused(
      { A: alarm('Slow', { ComparisonOperator: 'GreaterThanUpperThreshold' }) },
      'GreaterThanUpperThreshold is not',
    );
    refused({ A: alarm('Slow', { Period: 10 }) }, 'alarm "Slow": the period of 10 s');
    refused({ A: alarm('Slow', { Metrics: [] }) }, 'one element of Metrics must have ReturnData');
    refused({ C: composite('Any', 'ALARM("Gone")') }, 'name alarms that are not there, or each other: Gone');
    refused({ A: composite('A', 'OK(B)'), B: composite('B', 'OK(A)') }, 'or each other: B, A');
  });
});

describe('the dashboard', () => {
  const show = (widgets: readonly object[], from = NOON, to = NOON + MINUTE, more: object = {}) => {
    open({ D: dashboard(widgets, more) });
    return cloudWatch.dashboard(from, to);
  };

  it('has texts, and the names of alarms', () => {
    const shown = show([
      widget('text', { markdown: '## 1. The server' }),
      widget('alarm', {
        title: 'Alarms',
        alarms: ['arn:aws:cloudwatch:us-east-1:000000000000:alarm:PingMuc: Checks fail'],
      }),
      widget('metric', { title: 'One', annotations: { alarms: ['arn:aws:cloudwatch:::alarm:One'] } }),
      widget('log', { title: 'Errors' }),
    ]);
    const place = { x: 1, y: 2, width: 8, height: 6 };
    expect(shown).toEqual([
      { ...place, kind: 'text', markdown: '## 1. The server' },
      { ...place, kind: 'alarms', title: 'Alarms', alarms: ['PingMuc: Checks fail'] },
      { ...place, kind: 'alarms', title: 'One', alarms: ['One'] },
      { ...place, kind: 'text', markdown: '**Errors**\n\nWidgets of type log are shown on AWS only.' },
    ]);
  });

  it('has graphs with the data of their metrics, on both axes, and leaves out what is invisible', () => {
    open({
      D: dashboard([
        widget('metric', {
          title: 'Joins',
          stacked: true,
          metrics: [
            ['PingMuc', 'Joins', 'service', 'PingMuc', { id: 'joins', label: 'joins', stat: 'Sum' }],
            ['.', 'Leaves', '.', '.', { id: 'leaves', visible: false, stat: 'Sum' }],
            ['...', 'Other', { stat: 'Maximum', yAxis: 'right' }],
            [{ expression: 'RUNNING_SUM(FILL(joins, 0) - FILL(leaves, 0))', label: 'in rooms' }],
          ],
        }),
      ]),
    });
    record('Joins', 5);
    record('Joins', 2, NOON + MINUTE);
    record('Leaves', 1, NOON + MINUTE);
    const [graph] = cloudWatch.dashboard(NOON + 30_000, NOON + 2 * MINUTE);
    expect(graph).toEqual({
      ...{ x: 1, y: 2, width: 8, height: 6, kind: 'graph', title: 'Joins', isStacked: true },
      lines: [
        {
          label: 'joins',
          axis: 'left',
          points: [
            { at: NOON, value: 5 },
            { at: NOON + MINUTE, value: 2 },
          ],
        },
        { label: 'Leaves', axis: 'right', points: [] },
        {
          label: 'in rooms',
          axis: 'left',
          points: [
            { at: NOON, value: 5 },
            { at: NOON + MINUTE, value: 6 },
          ],
        },
      ],
    });
  });

  it.each([
    ['a minute for three hours', {}, 3, MINUTE],
    ['five minutes for a day', {}, 24, 5 * MINUTE],
    ['an hour for a week', {}, 7 * 24, 60 * MINUTE],
    ['what the widget says, if the dashboard says so', { periodOverride: 'inherit' }, 3, 15 * MINUTE],
  ])('has periods of %s', (_, more, hours, period) => {
    const graph = widget('metric', {
      period: 900,
      metrics: [['PingMuc', 'Joins', 'service', 'PingMuc', { stat: 'Sum' }]],
    });
    open({ D: dashboard([graph], more) });
    for (const minutes of [0, 60, 61, 62]) record('Joins', 1, NOON - minutes * MINUTE);
    now += MINUTE;
    const [shown] = cloudWatch.dashboard(now - hours * 60 * MINUTE, now);
    const points = shown?.kind === 'graph' ? (shown.lines[0]?.points ?? []) : [];
    expect(points.map(({ at }) => at % period)).toEqual(points.map(() => 0));
    expect(points.reduce((sum, { value }) => sum + value, 0)).toBe(4);
    expect(points).toHaveLength(period === MINUTE ? 4 : 3);
  });
});

it('a damaged database is named, with what to do', () => {
  open({});
  const other = mkdtempSync(join(tmpdir(), 'ping-muc-unit-'));
  writeFileSync(join(other, 'metrics.sqlite'), 'x'.repeat(10_000));
  expect(() => openCloudWatch({ directory: other, monitoring: readMonitoring({}), log: () => undefined })).toThrow(
    /metrics\.sqlite cannot be opened: .*It contains metrics only, and may be deleted/,
  );
  rmSync(other, { recursive: true });
});
