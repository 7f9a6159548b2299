import type { DatabaseSync } from 'node:sqlite';
import { Statements } from '../sqlite.ts';
import type { DataPoint, MetricId, Series } from './data-point.ts';
import { Distribution } from './distribution.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** The resolutions that are kept, and for how long: a day (and what an alarm of a day reads before it), and 30 days. */
const RESOLUTIONS = [
  { length: MINUTE, kept: DAY + 2 * HOUR },
  { length: HOUR, kept: 30 * DAY },
] as const;
/** Time stamps that CloudWatch accepts (PutMetricData): two weeks back, and two hours ahead. */
const [MAX_AGE, MAX_AHEAD] = [14 * DAY, 2 * HOUR];
/** Metrics that are kept. Our stack has some 60; the bound is for a stack that makes a dimension of user data. */
const MAX_METRICS = 1000;
/** Minutes with data that wait for the next transaction. */
const MAX_PENDING = 2000;
const [FLUSH_EVERY, PURGE_EVERY] = [SECOND, HOUR];

/** Sums and percentiles of one metric in one period. */
interface Period {
  sum: number;
  count: number;
  min: number;
  max: number;
  distribution: Distribution;
}

interface Row extends Omit<Period, 'distribution'> {
  readonly distribution: Uint8Array;
}

interface Metric {
  readonly id: MetricId;
  /** By the start of the minute. What is here is not on disk yet. */
  readonly pending: Map<number, Period>;
  /** The row of table `metrics`. */
  row: number | undefined;
}

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS metrics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
  CREATE TABLE IF NOT EXISTS periods (
    metric INTEGER NOT NULL, length INTEGER NOT NULL, at INTEGER NOT NULL,
    sum REAL NOT NULL, count REAL NOT NULL, min REAL NOT NULL, max REAL NOT NULL, distribution BLOB NOT NULL,
    PRIMARY KEY (metric, length, at)
  ) WITHOUT ROWID;`;
const READ = 'SELECT sum, count, min, max, distribution FROM periods WHERE metric = ? AND length = ? AND at = ?';
const WRITE = 'INSERT OR REPLACE INTO periods VALUES (?, ?, ?, ?, ?, ?, ?, ?)';
const PURGE = 'DELETE FROM periods WHERE metric = ? AND length = ? AND at < ?';
const PURGE_METRICS = 'DELETE FROM metrics WHERE NOT EXISTS (SELECT 1 FROM periods WHERE metric = metrics.id)';
const SLOT = 'CAST((at - :from) / :period AS INTEGER) AS slot'; // a number of JavaScript is bound as REAL
const AGGREGATE = `
  SELECT ${SLOT}, SUM(sum) AS Sum, SUM(count) AS SampleCount, MIN(min) AS Minimum,
    MAX(max) AS Maximum, SUM(sum) / SUM(count) AS Average
  FROM periods WHERE metric = :metric AND length = :length AND at >= :from AND at < :to GROUP BY slot`;
const DISTRIBUTIONS = `
  SELECT ${SLOT}, distribution
  FROM periods WHERE metric = :metric AND length = :length AND at >= :from AND at < :to`;

const SIMPLE = new Set(['Sum', 'SampleCount', 'Minimum', 'Maximum', 'Average']);
const PERCENTILE = /^p(\d{1,2}(?:\.\d+)?|100)$/;

/** @throws if `statistic` is none of Sum, SampleCount, Minimum, Maximum, Average and percentiles such as p99 */
export function checkStatistic(statistic: string): void {
  if (!SIMPLE.has(statistic) && !PERCENTILE.test(statistic))
    throw new Error(`the statistic ${statistic} is not supported: use ${[...SIMPLE].join(', ')} or pNN`);
}

/**
 * Metrics on disk: a day by the minute, 30 days by the hour. A data point counts for the minute of its own time stamp,
 * however late it arrives, as in CloudWatch. All methods are synchronous; a write takes place once a second.
 */
export class MetricStore {
  readonly #database: DatabaseSync;
  readonly #statements: Statements;
  readonly #now: () => number;
  readonly #warn: (message: string, detail: string) => void;
  readonly #metrics = new Map<string, Metric>();
  readonly #timer: NodeJS.Timeout;
  #pending = 0;
  #isFull = false;
  #purged = 0;

  /** @param warn is called if data is lost */
  constructor(database: DatabaseSync, now: () => number, warn: (message: string, detail: string) => void) {
    this.#database = database;
    this.#statements = new Statements(database);
    this.#now = now;
    this.#warn = warn;
    database.exec(SCHEMA);
    this.#readMetrics();
    this.#timer = setInterval(() => this.flush(), FLUSH_EVERY).unref();
  }

  record(points: readonly DataPoint[]): void {
    const now = this.#now();
    for (const point of points) {
      if (point.at < now - MAX_AGE || point.at > now + MAX_AHEAD) continue;
      const metric = this.#metric(point);
      if (metric === undefined) continue;
      const minute = point.at - (point.at % MINUTE);
      let period = metric.pending.get(minute);
      if (period === undefined) {
        period = emptyPeriod();
        metric.pending.set(minute, period);
        this.#pending += 1;
      }
      for (const value of point.values) addValue(period, value);
    }
    if (this.#pending > MAX_PENDING) this.flush();
  }

  /**
   * One value for each period of `period` ms from `from` until `to`, both in ms since the epoch; undefined where there
   * is no data. Periods of whole hours, and those before the last day, are read from the data by the hour.
   *
   * @throws if the statistic is not supported
   */
  series(metric: MetricId, statistic: string, from: number, to: number, period: number): Series {
    checkStatistic(statistic);
    this.flush();
    const values = Array.from<number | undefined>({ length: Math.max(0, Math.ceil((to - from) / period)) });
    const row = this.#metrics.get(nameOf(metric))?.row;
    if (row === undefined) return values;
    const isHourly = (from % HOUR === 0 && period % HOUR === 0) || from < this.#now() - RESOLUTIONS[0].kept;
    const parameters = { metric: row, length: isHourly ? HOUR : MINUTE, from, to, period };
    for (const [slot, value] of this.#read(statistic, parameters)) values[slot] = value;
    return values;
  }

  /** Writes what was recorded since the last time, in one transaction. */
  flush(): void {
    if (this.#pending === 0) return;
    const now = this.#now();
    const changed = [...this.#metrics.values()].filter(({ pending }) => pending.size > 0);
    const added = changed.filter(({ row }) => row === undefined);
    try {
      this.#database.exec('BEGIN');
      for (const metric of changed) this.#write(metric, now);
      if (now - this.#purged >= PURGE_EVERY) this.#purge(now);
      this.#database.exec('COMMIT');
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      for (const metric of added) metric.row = undefined;
      this.#warn('metrics of the last second are lost', String(error));
    }
    for (const { pending } of changed) pending.clear();
    this.#pending = 0;
  }

  close(): void {
    clearInterval(this.#timer);
    this.flush();
  }

  #readMetrics(): void {
    this.#metrics.clear();
    const rows = this.#database.prepare('SELECT id, name FROM metrics').all() as { id: number; name: string }[];
    for (const { id, name } of rows) this.#metrics.set(name, { id: idOf(name), pending: new Map(), row: id });
  }

  #metric(point: DataPoint): Metric | undefined {
    const name = nameOf(point);
    const known = this.#metrics.get(name);
    if (known !== undefined) return known;
    if (this.#metrics.size >= MAX_METRICS) {
      if (!this.#isFull) this.#warn('further metrics are not kept', `there are ${MAX_METRICS} already; first: ${name}`);
      this.#isFull = true;
      return undefined;
    }
    const metric: Metric = { id: point, pending: new Map(), row: undefined };
    this.#metrics.set(name, metric);
    return metric;
  }

  *#read(statistic: string, parameters: Record<string, number>): Iterable<readonly [number, number | undefined]> {
    const percent = PERCENTILE.exec(statistic)?.[1];
    if (percent === undefined) {
      const rows = this.#statements.get(AGGREGATE).all(parameters) as ({ slot: number } & Record<string, number>)[];
      for (const row of rows) yield [row.slot, row[statistic]];
      return;
    }
    const merged = new Map<number, Distribution>();
    const rows = this.#statements.get(DISTRIBUTIONS).all(parameters) as { slot: number; distribution: Uint8Array }[];
    for (const row of rows) {
      const distribution = Distribution.fromBytes(row.distribution);
      const known = merged.get(row.slot);
      if (known === undefined) merged.set(row.slot, distribution);
      else known.merge(distribution);
    }
    for (const [slot, distribution] of merged) yield [slot, distribution.percentile(Number(percent))];
  }

  /** Adds what is pending to the rows on disk, for each resolution. */
  #write(metric: Metric, now: number): void {
    metric.row ??= Number(
      this.#database.prepare('INSERT INTO metrics (name) VALUES (?)').run(nameOf(metric.id)).lastInsertRowid,
    );
    for (const { length, kept } of RESOLUTIONS) {
      const periods = new Map<number, Period>();
      for (const [minute, period] of metric.pending) {
        const at = minute - (minute % length);
        if (at < now - kept) continue;
        const known = periods.get(at) ?? this.#stored(metric.row, length, at);
        addPeriod(known, period);
        periods.set(at, known);
      }
      for (const [at, { sum, count, min, max, distribution }] of periods)
        this.#statements.get(WRITE).run(metric.row, length, at, sum, count, min, max, distribution.toBytes());
    }
  }

  #stored(metric: number, length: number, at: number): Period {
    const row = this.#statements.get(READ).get(metric, length, at) as Row | undefined;
    return row === undefined ? emptyPeriod() : { ...row, distribution: Distribution.fromBytes(row.distribution) };
  }

  #purge(now: number): void {
    this.#purged = now;
    for (const { row } of this.#metrics.values())
      if (row !== undefined)
        for (const { length, kept } of RESOLUTIONS) this.#statements.get(PURGE).run(row, length, now - kept);
    if (this.#database.prepare(PURGE_METRICS).run().changes === 0) return;
    this.#isFull = false;
    this.#readMetrics();
  }
}

const nameOf = ({ namespace, name, dimensions }: MetricId): string =>
  JSON.stringify([namespace, name, ...Object.entries(dimensions).sort(([a], [b]) => (a < b ? -1 : 1))]);

function idOf(stored: string): MetricId {
  const [namespace, name, ...dimensions] = JSON.parse(stored) as [string, string, ...[string, string][]];
  return { namespace, name, dimensions: Object.fromEntries(dimensions) };
}

const emptyPeriod = (): Period => ({
  sum: 0,
  count: 0,
  min: Infinity,
  max: -Infinity,
  distribution: new Distribution(),
});

function addValue(period: Period, value: number): void {
  period.sum += value;
  period.count += 1;
  period.min = Math.min(period.min, value);
  period.max = Math.max(period.max, value);
  period.distribution.add(value);
}

function addPeriod(period: Period, more: Period): void {
  period.sum += more.sum;
  period.count += more.count;
  period.min = Math.min(period.min, more.min);
  period.max = Math.max(period.max, more.max);
  period.distribution.merge(more.distribution);
}
