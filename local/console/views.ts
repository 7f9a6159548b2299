import type { AlarmState, WidgetView } from '../cloudwatch/views.ts';

/** What the console's server tells its pages. All times are in milliseconds since the epoch. */

export type Counts = Readonly<Record<string, number>>;

export interface CheckView {
  /** The execution's name. */
  readonly name: string;
  readonly host: string;
  readonly remote: string;
  /** The one room that is checked. Undefined: all rooms on the remote host. */
  readonly room?: string;
  /** `close`, `room-error`, `silence` or `operator`. */
  readonly cause: string;
  readonly phase:
    'waits' | 'runs' | 'asks again' | 'is held' | 'done' | 'superseded' | 'dropped' | 'failed' | 'stopped';
  /** The moment of the close. Joins made before it are checked. */
  readonly closedAt: number;
  readonly due: number;
  /** When it continues, if it waits. */
  readonly nextAt?: number;
  readonly endedAt?: number;
  /** 0 is the first. */
  readonly round: number;
  /** Joins that the last round left open. */
  readonly open: number;
  readonly isDryRun: boolean;
  readonly totals: Counts;
  /** Joins on the remote host, or in the room, at this moment. Only of checks that have not ended. */
  readonly joins?: number;
  /** Why it failed. */
  readonly error?: string;
}

export interface ChecksView {
  readonly waiting: readonly CheckView[];
  readonly waitingCount: number;
  readonly ended: readonly CheckView[];
  readonly endedCount: number;
}

export type NameKind = 'user' | 'room' | 'remote';

export interface Found {
  readonly kind: NameKind;
  readonly name: string;
}

export interface JoinView {
  /** The session's full JID. */
  readonly user: string;
  readonly room: string;
  readonly nick: string;
  readonly since: number;
  /** A check could not decide it yet, and will ask again. */
  readonly isUndecided: boolean;
  /** When a check last found that the user is still in the room. */
  readonly confirmedAt?: number;
}

/** A line that a check wrote to the log. */
export interface HistoryView {
  readonly at: number;
  readonly check: string;
  readonly remote: string;
  readonly room?: string;
  readonly user?: string;
  readonly isError: boolean;
  /** What happened, in plain words. */
  readonly what: string;
  /** The rooms' answers in the order of the questions, or the details of an error. */
  readonly answers: readonly string[];
  readonly totals?: Counts;
}

export interface WhoView extends Found {
  readonly joins: readonly JoinView[];
  readonly joinCount: number;
  readonly history: readonly HistoryView[];
  /** There is more history than this. */
  readonly isCut: boolean;
  /** The newest checks that concern it. */
  readonly checks: readonly CheckView[];
}

export interface ServerView {
  readonly host: string;
  /** When its last webhook was accepted. */
  readonly lastWebhook?: number;
  /** Events in that webhook. */
  readonly events?: number;
  /** Webhooks that were accepted since the console's database began. */
  readonly webhooks?: number;
  readonly joins: number;
  /** The server's own report. An older module sends none. */
  readonly heartbeat?: {
    readonly at: number;
    /** Events that wait in the server. */
    readonly queued: number;
    /** The age of the oldest of them, in milliseconds. */
    readonly oldest: number;
  };
}

export interface ServersView {
  readonly servers: readonly ServerView[];
  /** The last request that was refused, for example because of a wrong signature. */
  readonly refused?: { readonly at: number; readonly detail: string };
}

export interface OverviewView {
  readonly health: { readonly level: 'good' | 'idle' | 'bad'; readonly sentence: string };
  readonly joins: number;
  /** The table is being read after a start, so joins are still missing. */
  readonly isFilling: boolean;
  readonly servers: readonly ServerView[];
  readonly alarms: readonly { readonly name: string; readonly state: AlarmState; readonly notifies: boolean }[];
  readonly due: readonly CheckView[];
  readonly waitingCount: number;
  readonly ended: readonly CheckView[];
}

export interface DashboardView {
  readonly from: number;
  readonly to: number;
  readonly widgets: readonly WidgetView[];
}
