/** The units of all parts of the benchmark, and their statistics. */

/** One quantity of something, measured several times: a cell of the part's table. */
export interface Sample {
  /** The row. */
  readonly what: string;
  /** The column. */
  readonly quantity: string;
  readonly unit: string;
  readonly values: readonly number[];
}

/** How a quantity grows with size. */
export interface Growth {
  readonly title: string;
  /** What is on the horizontal axis, and on the vertical one. */
  readonly x: string;
  readonly y: string;
  readonly lines: readonly { readonly name: string; readonly points: readonly (readonly [x: number, y: number])[] }[];
}

/** The results of a part: values for the budgets, by name, and tables and charts of its own. */
export interface Findings {
  readonly budgets: Partial<Record<Budget, readonly number[]>>;
  readonly samples: readonly Sample[];
  readonly growth: readonly Growth[];
}

/** Collects values by row and column. */
export class Collection {
  readonly #samples = new Map<string, Sample & { readonly values: number[] }>();

  add(what: string, quantity: string, unit: string, ...values: readonly number[]): void {
    const key = JSON.stringify([what, quantity]);
    const sample = this.#samples.get(key) ?? { what, quantity, unit, values: [] };
    sample.values.push(...values);
    this.#samples.set(key, sample);
  }

  /** @throws if nothing was measured, so that no budget is skipped silently */
  get(what: string, quantity: string): readonly number[] {
    const sample = this.#samples.get(JSON.stringify([what, quantity]));
    if (sample === undefined) throw new Error(`not measured: ${what}, ${quantity}`);
    return sample.values;
  }

  has(what: string, quantity: string): boolean {
    return this.#samples.has(JSON.stringify([what, quantity]));
  }

  all(): readonly Sample[] {
    return [...this.#samples.values()];
  }
}

/** Reports what is being measured. */
export type Progress = (step: string) => void;

/** Repetitions of measurements that take seconds. */
export const REPETITIONS = 5;

export interface Limit {
  readonly unit: string;
  /** The value must be at most, or at least, this. */
  readonly most?: number;
  readonly least?: number;
  /** The worst repetition counts, not the median: for what is counted, not timed. */
  readonly isCounted?: true;
}

/** The budgets. */
export const BUDGETS = {
  'wrong notices, 50,000 joins, both streams cut': { unit: '', most: 0, isCounted: true },
  'wrong notices, 5,000 joins, cut again at 25 moments': { unit: '', most: 0, isCounted: true },
  'wrong notices, 5,000 joins, cut five times': { unit: '', most: 0, isCounted: true },
  'wrong notices, 5,000 joins kept, lost and flapping, on each server': { unit: '', most: 0, isCounted: true },
  'from due to the last notice, 5,000 lost, on ejabberd': { unit: 's', most: 3 },
  'notices for one loss': { unit: '', most: 1, isCounted: true },
  'longest stall of the event loop, check of 5,000': { unit: 'ms', most: 50 },
  "the same, as a multiple of the limit's own": { unit: '×', most: 1.5 },
  'from due to the last verdict, 5,000 joins, as a multiple of the limit': { unit: '×', most: 1.25 },
  'from due to the last notice, 5,000 lost': { unit: 's', most: 3 },
  'wrong re-entries, 5,000 joins': { unit: '', most: 0, isCounted: true },
  'forgotten: neither back nor notified, 5,000 joins': { unit: '', most: 0, isCounted: true },
  'a live message is late while 5,000 are brought back': { unit: 'ms', most: 1000, isCounted: true },
  'pings through the stanza API': { unit: '/s', least: 3500 },
  'write units for a recorded join': { unit: '', most: 1, isCounted: true },
  'code of a function, minified': { unit: 'kB', most: 450, isCounted: true },
  'module initialisation, Node 24': { unit: 'ms', most: 75 },
} as const satisfies Record<string, Limit>;

export type Budget = keyof typeof BUDGETS;

/** The middle value, or the mean of the two middle values. @throws if there is none */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which a share of the values lies, interpolated. @throws if there is none */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  if (low === undefined || high === undefined) throw new Error('nothing was measured');
  return low + (high - low) * (at - Math.floor(at));
}

/**
 * The exponent with which y grows with x: 1 is linear, 0 costs nothing more; the least squares of the logarithms.
 * Points that are 0 are left out; undefined where fewer than two are left.
 */
export function exponent(points: readonly (readonly [x: number, y: number])[]): number | undefined {
  const logs = points.filter(([x, y]) => x > 0 && y > 0).map(([x, y]) => [Math.log(x), Math.log(y)] as const);
  if (logs.length < 2) return undefined;
  const mean = (index: 0 | 1): number => logs.reduce((sum, log) => sum + log[index], 0) / logs.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  const covariance = logs.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  return covariance / logs.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
}

export interface Verdict {
  readonly budget: Budget;
  readonly limit: Limit;
  /** The value that is compared with the limit. */
  readonly measured: number;
  /** Measured divided by the limit; undefined where the limit is 0. */
  readonly ratio: number | undefined;
  readonly least: number;
  readonly most: number;
  readonly isMet: boolean;
}

/** Compares values with a budget. @throws if there are none */
export function judge(budget: Budget, values: readonly number[]): Verdict {
  if (values.length === 0) throw new Error(`not measured: ${budget}`);
  const limit: Limit = BUDGETS[budget];
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const measured = limit.isCounted === true ? most : median(values);
  const bound = limit.most ?? limit.least ?? 0;
  const isMet = limit.most !== undefined ? measured <= bound : measured >= bound;
  return { budget, limit, measured, ratio: bound === 0 ? undefined : measured / bound, least, most, isMet };
}
