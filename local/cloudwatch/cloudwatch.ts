import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { openDatabase } from '../sqlite.ts';
import { evaluateAlarms } from './alarm-evaluator.ts';
import { AlarmLog } from './alarm-log.ts';
import { evaluationRange } from './alarms.ts';
import { pointsOf, viewOf } from './dashboard.ts';
import type { PointRecorder } from './data-point.ts';
import { MetricStore } from './metric-store.ts';
import { type Delivery, Notifier } from './notifier.ts';
import { type ReadSeries, evaluateQueries } from './queries.ts';
import type { AlarmDefinition, CompositeDefinition, Monitoring } from './template.ts';
import type { AlarmView, GraphLine, Transition, WidgetView } from './views.ts';

/** The dashboard and the alarms of the synthesized stack, on one machine. */
export interface CloudWatch {
  /** The widgets, in the template's order, with the data from `from` until `to`, in milliseconds since the epoch. */
  dashboard(from: number, to: number): readonly WidgetView[];
  /** In the template's order, composite alarms last. */
  alarms(): readonly AlarmView[];
  /** Newest first, at most 1,000. */
  transitions(): readonly Transition[];
  /** Ends the evaluation, and writes what is not on disk yet. */
  close(): Promise<void>;
}

/** What the runtime itself, and tests, also use. */
export interface LocalCloudWatch extends CloudWatch {
  readonly record: PointRecorder;
  /** Evaluates all alarms now. This takes place once a minute anyway. */
  evaluate(): void;
}

interface Options {
  /** The directory for the database. */
  readonly directory: string;
  readonly monitoring: Monitoring;
  /** Receives a line for each change of an alarm's state, and for each failure. */
  readonly log: (line: string) => void;
  readonly alarms?: Delivery;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

const MINUTE = 60_000;
/** After the end of a minute, its last data points need a moment to arrive. */
const EVALUATE_AFTER_MS = 2000;
/** Of an alarm's metric, so much is shown, or what its evaluation reads. */
const SHOWN_MS = 3 * 60 * MINUTE;

/** Opens the store, and evaluates the alarms from now on. @throws if the database cannot be opened */
export function openCloudWatch({ directory, monitoring, log, alarms, now = Date.now }: Options): LocalCloudWatch {
  const write = (level: string, message: string, fields: object): void =>
    log(JSON.stringify({ level, time: new Date(now()).toISOString(), message, ...fields }));
  const warn = (message: string, detail: string): void => write('WARN', message, { detail });
  const database = openMetrics(join(directory, 'metrics.sqlite'));
  const store = new MetricStore(database, now, warn);
  const states = new AlarmLog(database);
  const notifier = new Notifier(alarms ?? { command: undefined, url: undefined }, warn);
  const read: ReadSeries = (...query) => store.series(...query);
  states.keepOnly(new Set([...monitoring.alarms, ...monitoring.composites].map(({ name }) => name)));

  const evaluate = (): void => {
    for (const change of evaluateAlarms(monitoring, read, states, now())) {
      const { name, from, to, reason } = change;
      write(to === 'ALARM' ? 'WARN' : 'INFO', 'alarm changed', { alarm: name, from, to, reason });
      notifier.notify(change);
    }
  };
  const stop = everyMinute(now, () => {
    try {
      evaluate();
    } catch (error) {
      warn('alarms could not be evaluated', String(error));
    }
  });
  const opened = now();
  const viewAlarm = (alarm: AlarmDefinition | CompositeDefinition): AlarmView => {
    const { name, description } = alarm;
    const stored = states.get(name) ?? { state: 'INSUFFICIENT_DATA', since: opened, reason: 'not evaluated yet' };
    const about = { name, description, ...stored, notifies: alarm.actions.ALARM.length > 0 };
    if ('rule' in alarm) return { ...about, isComposite: true, lines: [] };
    return { ...about, isComposite: false, lines: linesOf(alarm, now(), read), threshold: alarm.threshold };
  };

  return {
    record: (points) => store.record(points),
    evaluate,
    dashboard: (from, to) => monitoring.widgets.map((widget) => viewOf(widget, from, to, read)),
    alarms: () => [...monitoring.alarms, ...monitoring.composites].map(viewAlarm),
    transitions: () => states.transitions(),
    async close() {
      stop();
      await notifier.close();
      store.close();
      database.close();
    },
  };
}

function openMetrics(file: string): DatabaseSync {
  try {
    return openDatabase(file);
  } catch (error) {
    throw new Error(`${file} cannot be opened: ${String(error)}. It contains metrics only, and may be deleted.`, {
      cause: error,
    });
  }
}

/** Calls `act` soon after the end of each minute. @returns a function that ends this */
function everyMinute(now: () => number, act: () => void): () => void {
  let timer: NodeJS.Timeout;
  const schedule = (): void => {
    timer = setTimeout(
      () => {
        act();
        schedule();
      },
      MINUTE - (now() % MINUTE) + EVALUATE_AFTER_MS,
    ).unref();
  };
  schedule();
  return () => clearTimeout(timer);
}

/** What an alarm evaluates comes first, and then the metrics that it is computed from. */
function linesOf(alarm: AlarmDefinition, now: number, read: ReadSeries): readonly GraphLine[] {
  const { queries, evaluated, period } = alarm;
  const { from, to } = evaluationRange(alarm, now);
  const start = Math.min(from, to - Math.ceil(SHOWN_MS / period) * period);
  const series = evaluateQueries(queries, { from: start, to, period }, read);
  const inOrder = [...queries].sort((a, b) => Number(b.id === evaluated) - Number(a.id === evaluated));
  return inOrder.map(({ id, label }) => ({
    label,
    axis: 'left',
    points: pointsOf(series.get(id) ?? [], start, period),
  }));
}
