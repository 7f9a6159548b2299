/** What identifies a metric. Each combination of dimensions is a metric of its own. */
export interface MetricId {
  readonly namespace: string;
  readonly name: string;
  readonly dimensions: Readonly<Record<string, string>>;
}

/** Values of a metric at one time. */
export interface DataPoint extends MetricId {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly values: readonly number[];
}

/** Receives data points, in any order. */
export type PointRecorder = (points: readonly DataPoint[]) => void;

/** Values of one metric or expression, one for each period, oldest first. */
export type Series = readonly (number | undefined)[];
