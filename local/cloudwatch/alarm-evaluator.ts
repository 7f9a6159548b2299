import type { AlarmLog } from './alarm-log.ts';
import { alarmsOf, evaluateRule } from './alarm-rule.ts';
import { type Verdict, evaluateAlarm, evaluationRange } from './alarms.ts';
import { type ReadSeries, evaluateQueries } from './queries.ts';
import type { AlarmDefinition, CompositeDefinition, Monitoring } from './template.ts';
import type { AlarmState, Transition } from './views.ts';

/** A change of state, with what the alarm tells the operator. */
export interface AlarmChange extends Transition {
  readonly description: string;
  /** The ARNs that the template notifies of this change. */
  readonly actions: readonly string[];
}

/**
 * Evaluates all alarms at `now`, and stores their states.
 *
 * @returns the changes. The first evaluation of an alarm that finds it OK is none: nobody has to know.
 * @throws MathError if an expression cannot be evaluated
 */
export function evaluateAlarms(
  { alarms, composites }: Pick<Monitoring, 'alarms' | 'composites'>,
  read: ReadSeries,
  log: AlarmLog,
  now: number,
): readonly AlarmChange[] {
  const stateOf = (name: string): AlarmState => log.get(name)?.state ?? 'INSUFFICIENT_DATA';
  const changes: AlarmChange[] = [];
  const settle = (alarm: AlarmDefinition | CompositeDefinition, { state, reason }: Verdict): void => {
    const known = log.get(alarm.name);
    const from = stateOf(alarm.name);
    log.set(alarm.name, { state, reason, since: known?.state === state ? known.since : now });
    if (from === state || (known === undefined && state === 'OK')) return;
    const { name, description, actions } = alarm;
    changes.push({ name, from, to: state, at: now, reason, description, actions: actions[state] });
  };

  for (const alarm of alarms) {
    const series = evaluateQueries(alarm.queries, evaluationRange(alarm, now), read);
    settle(alarm, evaluateAlarm(alarm, series.get(alarm.evaluated) ?? [], stateOf(alarm.name)));
  }
  for (const composite of composites) {
    const isTrue = evaluateRule(composite.rule, stateOf);
    const raised = alarmsOf(composite.rule).filter((name) => stateOf(name) === 'ALARM');
    const why = raised.map((name) => `${name}: ${log.get(name)?.reason ?? ''}`).join('. ');
    settle(composite, {
      state: isTrue ? 'ALARM' : 'OK',
      reason: isTrue ? `its rule is true. ${why}` : 'its rule is false',
    });
  }
  return changes;
}
