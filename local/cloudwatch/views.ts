/** What CloudWatch shows, for a console. All times are in milliseconds since the epoch. */

interface Point {
  /** Start of the period. */
  readonly at: number;
  readonly value: number;
}

/** A metric or an expression. A period without data has no point. */
export interface GraphLine {
  readonly label: string;
  readonly axis: 'left' | 'right';
  readonly points: readonly Point[];
}

/** Where a widget is in the dashboard's grid of 24 columns. */
interface Place {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export type WidgetView = Place &
  (
    | { readonly kind: 'text'; readonly markdown: string }
    /** `alarms` are names, as in `AlarmView`. */
    | { readonly kind: 'alarms'; readonly title: string; readonly alarms: readonly string[] }
    | {
        readonly kind: 'graph';
        readonly title: string;
        readonly isStacked: boolean;
        readonly lines: readonly GraphLine[];
      }
  );

export type AlarmState = 'OK' | 'ALARM' | 'INSUFFICIENT_DATA';

export interface AlarmView {
  readonly name: string;
  readonly description: string;
  readonly state: AlarmState;
  /** When the alarm entered its state. */
  readonly since: number;
  /** Why it is in this state. */
  readonly reason: string;
  readonly isComposite: boolean;
  /** It has an action for its state ALARM. Otherwise it is only a condition of composite alarms. */
  readonly notifies: boolean;
  /** The metric over the last periods that an evaluation reads. A composite alarm has none. */
  readonly lines: readonly GraphLine[];
  /** A composite alarm has none. */
  readonly threshold?: number;
}

/** A change of an alarm's state. */
export interface Transition {
  readonly name: string;
  readonly from: AlarmState;
  readonly to: AlarmState;
  readonly at: number;
  readonly reason: string;
}
