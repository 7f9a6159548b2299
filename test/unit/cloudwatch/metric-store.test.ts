import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MetricStore } from '../../../local/cloudwatch/metric-store.ts';

vi.setConfig({ testTimeout: 30_000 }); // real parts, which are slow on a busy machine

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NOON = Date.UTC(2027, 0, 15, 12, 0);
const METRIC = { namespace: 'PingMuc', name: 'AnswerLateness', dimensions: { service: 'PingMuc', stage: 'x' } };

let directory: string;
let database: DatabaseSync;
let store: MetricStore;
let now: number;
let warnings: string[];

function open(): void {
  database = new DatabaseSync(join(directory, 'metrics.sqlite'));
  store = new MetricStore(
    database,
    () => now,
    (message, detail) => warnings.push(`${message}: ${detail}`),
  );
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ping-muc-unit-'));
  now = NOON;
  warnings = [];
  open();
});

afterEach(() => {
  if (database.isOpen) {
    store.close();
    database.close();
  }
  rmSync(directory, { recursive: true, force: true });
});

function reopen(): void {
  store.close();
  database.close();
  open();
}

const record = (at: number, ...values: number[]): void => store.record([{ ...METRIC, at, values }]);
const read = (statistic: string, from = NOON - 2 * MINUTE, to = NOON + MINUTE, period = MINUTE) =>
  store.series(METRIC, statistic, from, to, period);

describe('a statistic', () => {
  it.each([
    ['Sum', 60],
    ['SampleCount', 4],
    ['Average', 15],
    ['Minimum', 0],
    ['Maximum', 30],
    ['p50', 10],
    ['p75', 20],
    ['p99', 30],
    ['p0', 0],
    ['p100', 30],
    ['p99.9', 30],
  ])('%s of 10, 0, 30 and 20 is %s', (statistic, result) => {
    record(NOON, 10, 0);
    record(NOON + 59_999, 30);
    record(NOON + 5, 20);
    expect(read(statistic)).toEqual([undefined, undefined, result]);
  });

  it('that is not supported is named', () => {
    expect(() => read('tm90')).toThrow('the statistic tm90 is not supported');
    expect(() => read('p101')).toThrow('the statistic p101 is not supported');
  });

  it('of a longer period is of all its values', () => {
    for (let minute = 0; minute < 10; minute += 1) record(NOON - minute * MINUTE, minute);
    const five = (statistic: string) => read(statistic, NOON - 9 * MINUTE, NOON + MINUTE, 5 * MINUTE);
    expect(five('Sum')).toEqual([35, 10]);
    expect(five('p50')).toEqual([7, 2]);
  });

  it('starts where it is asked to, not at whole periods', () => {
    record(NOON, 1);
    expect(read('Sum', NOON - 3 * MINUTE, NOON + 7 * MINUTE, 5 * MINUTE)).toEqual([1, undefined]);
    expect(read('Sum', NOON - 6 * MINUTE, NOON + 4 * MINUTE, 5 * MINUTE)).toEqual([undefined, 1]);
  });
});

describe('a percentile', () => {
  it('is exact while a minute has a hundred different values', () => {
    const values = Array.from({ length: 100 }, (_, index) => index * 7.77 + 0.01);
    record(NOON, ...values, ...values);
    expect(read('p37').at(-1)).toBe(values[36]);
  });

  it('differs by 1 % at most with any number of values, across minutes and writes', () => {
    const values: number[] = [];
    for (let minute = 0; minute < 3; minute += 1) {
      for (let index = 0; index < 3000; index += 1) {
        const value = Math.exp(((index * 7919) % 3000) / 200) * (index % 5 === 0 ? -1 : 1) + minute;
        values.push(value);
        record(NOON - minute * MINUTE, value);
      }
      store.flush();
    }
    values.sort((a, b) => a - b);
    for (const percent of [1, 10, 25, 50, 75, 90, 99, 99.9]) {
      const exact = values[Math.ceil((values.length * percent) / 100) - 1] ?? 0;
      const [found = 0] = read(`p${percent}`, NOON - 2 * MINUTE, NOON + MINUTE, 3 * MINUTE);
      expect(Math.abs(found - exact) / Math.abs(exact), `p${percent}: ${found} for ${exact}`).toBeLessThanOrEqual(
        0.0101,
      );
    }
  });
});

describe('a data point', () => {
  it('counts for the minute of its own time stamp, however late it arrives', () => {
    record(NOON, 1);
    store.flush();
    now = NOON + 14 * MINUTE;
    record(NOON, 2);
    expect(read('Sum')).toEqual([undefined, undefined, 3]);
    expect(read('Sum', NOON, NOON + HOUR, HOUR)).toEqual([3]);
  });

  it('is refused if it is older than two weeks, or more than two hours ahead', () => {
    record(NOON - 14 * DAY - 1, 1);
    record(NOON + 2 * HOUR + 1, 1);
    record(NOON + HOUR, 1);
    expect(read('Sum', NOON - 15 * DAY, NOON + DAY, 16 * DAY)).toEqual([1]);
  });

  it('belongs to the metric with the same dimensions, in any order', () => {
    store.record([{ ...METRIC, dimensions: { stage: 'x', service: 'PingMuc' }, at: NOON, values: [1] }]);
    store.record([{ ...METRIC, dimensions: { service: 'PingMuc' }, at: NOON, values: [10] }]);
    expect(read('Sum').at(-1)).toBe(1);
  });
});

describe('the store', () => {
  it('keeps everything when it is opened again', () => {
    record(NOON, 4, 5);
    reopen();
    record(NOON, 6);
    expect(read('Sum').at(-1)).toBe(15);
    expect(read('p50').at(-1)).toBe(5);
  });

  it('keeps a day by the minute, and 30 days by the hour', () => {
    const count = (length: number): unknown =>
      database.prepare('SELECT COUNT(*) AS n FROM periods WHERE length = ?').get(length)?.['n'];
    record(NOON, 1);
    store.flush();
    for (const [later, minutes, hours] of [
      [25 * HOUR, 2, 2],
      [3 * DAY, 1, 3],
      [31 * DAY, 1, 3],
    ] as const) {
      now = NOON + later;
      record(now, 1);
      store.flush();
      expect([count(MINUTE), count(HOUR)], `${later}`).toEqual([minutes, hours]);
    }
    expect(read('Sum', NOON, NOON + 4 * DAY, DAY)).toEqual([undefined, 1, undefined, 1]);
    record(now - 2 * DAY, 1); // too late for its minute
    store.flush();
    expect([count(MINUTE), count(HOUR)]).toEqual([1, 4]);
  });

  it('forgets a metric that has no data any more, and takes others in its place', () => {
    record(NOON, 1);
    store.flush();
    now = NOON + 31 * DAY;
    store.record([{ ...METRIC, name: 'Notices', at: now, values: [1] }]);
    store.flush();
    expect(database.prepare('SELECT COUNT(*) AS n FROM metrics').get()).toEqual({ n: 1 });
    record(now, 2);
    expect(store.series(METRIC, 'Sum', now - MINUTE, now + MINUTE, 2 * MINUTE)).toEqual([2]);
  });

  it('keeps a thousand metrics, and says once that there are more', () => {
    const named = (index: number) => ({ ...METRIC, name: `Metric${index}`, at: NOON, values: [1] });
    store.record(Array.from({ length: 1002 }, (_, index) => named(index)));
    const sum = (index: number) => store.series(named(index), 'Sum', NOON, NOON + MINUTE, MINUTE);
    expect([sum(0), sum(999), sum(1000), sum(1001)]).toEqual([[1], [1], [undefined], [undefined]]);
    expect(warnings).toEqual([expect.stringContaining('further metrics are not kept: there are 1000 already')]);
  });

  it('that cannot write says so, and goes on with what comes later', () => {
    record(NOON, 1);
    database.exec('ALTER TABLE periods RENAME TO gone');
    store.flush();
    expect(warnings).toEqual([expect.stringContaining('metrics of the last second are lost: ')]);
    database.exec('ALTER TABLE gone RENAME TO periods');
    record(NOON, 2);
    reopen();
    expect(read('Sum').at(-1)).toBe(2);
  });
});
