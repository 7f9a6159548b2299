import type { AlarmView, Transition, WidgetView } from './views.ts';

export type { AlarmState, AlarmView, GraphLine, Point, Transition, WidgetView } from './views.ts';

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
