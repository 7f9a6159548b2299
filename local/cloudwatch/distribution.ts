/** Distinct values of a period that are exact. Further ones are rounded. */
const MAX_EXACT = 100;
/** Rounded values differ from the real ones by at most 1 %. */
const MAX_ERROR = 0.01;
/** Neighbouring rounded values differ by this factor. */
const STEP = (1 + MAX_ERROR) / (1 - MAX_ERROR);
/** Smaller and greater amounts are rounded to these limits, so that at most some 5,600 distinct values are stored. */
const [SMALLEST, GREATEST] = [1e-9, 1e15];

/** How often each value occurred in a period. Percentiles are computed from it. */
export class Distribution {
  readonly #counts = new Map<number, number>();

  add(value: number, count = 1): void {
    const stored = this.#counts.size < MAX_EXACT || this.#counts.has(value) ? value : round(value);
    this.#counts.set(stored, (this.#counts.get(stored) ?? 0) + count);
  }

  merge(other: Distribution): void {
    for (const [value, count] of other.#counts) this.add(value, count);
  }

  /**
   * The smallest value that is not exceeded by `percent` % of the values (the nearest rank), or undefined if there are
   * no values. It is exact while there are at most 100 distinct values, and otherwise at most 1 % from the exact one.
   */
  percentile(percent: number): number | undefined {
    const sorted = [...this.#counts].sort(([a], [b]) => a - b);
    const total = sorted.reduce((sum, [, count]) => sum + count, 0);
    let left = Math.max(1, Math.ceil((total * percent) / 100));
    for (const [value, count] of sorted) {
      left -= count;
      if (left <= 0) return value;
    }
    return undefined;
  }

  toBytes(): Uint8Array {
    return new Uint8Array(Float64Array.from([...this.#counts].flat()).buffer);
  }

  static fromBytes(bytes: Uint8Array): Distribution {
    const numbers = new Float64Array(bytes.slice().buffer); // a copy, which begins at a multiple of eight
    const distribution = new Distribution();
    for (let index = 0; index < numbers.length; index += 2)
      distribution.#counts.set(numbers[index] ?? 0, numbers[index + 1] ?? 0);
    return distribution;
  }
}

/** The nearest of the values that are apart by STEP. A rounded value stays as it is. */
function round(value: number): number {
  if (value === 0) return 0;
  const amount = Math.min(Math.max(Math.abs(value), SMALLEST), GREATEST);
  const bin = Math.ceil(Math.log(amount) / Math.log(STEP));
  return (Math.sign(value) * 2 * STEP ** bin) / (STEP + 1);
}
