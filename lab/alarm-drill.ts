import type { CleanDay } from './drill/clean-day.ts';
import type { Fault } from './drill/faults.ts';
import type { Synthesized } from './drill/stack.ts';
import { HOUR, MINUTE, World } from './drill/world.ts';

/** Raises each alarm of the synthesized stack by a fault, in virtual time. */

/** What came of a fault. Times are in milliseconds. */
export interface Drilled extends Pick<Fault, 'alarm' | 'fault'> {
  readonly severity: string;
  /** From the beginning of the fault until the alarm was raised. Undefined: it was not, or too late. */
  readonly rangAfter: number | undefined;
  /** From the end of the fault until the alarm was over. Undefined: it was not. */
  readonly clearedAfter: number | undefined;
  /** Other alarms that notified. */
  readonly alsoRang: readonly string[];
  /** All alarms that were raised, also those for the conditions of others. */
  readonly raised: readonly string[];
}

/** Where the faults are played: two servers, and users who come and go. */
const SIZE = { hosts: 2, remotes: 3, joins: 60 };
/** Before the fault, so long, and not at a round minute. */
const WARM_UP_MS = 40 * MINUTE + 130_000;
/** An alarm is raised for so long before the fault ends. */
const UNTIL_NOTICED_MS = 5 * MINUTE;
/** An alarm must be raised within this time, and must be over within the other. */
const [WITHIN_MS, OVER_WITHIN_MS] = [HOUR / 2, 2 * HOUR];

/** An alarm that notifies. */
export interface Notifying {
  /** The name without the stack's. */
  readonly title: string;
  readonly severity: string;
}

/** The alarms that notify, in the template's order. */
export function notifying({ monitoring }: Synthesized): readonly Notifying[] {
  return [...monitoring.alarms, ...monitoring.composites]
    .filter(({ actions }) => actions.ALARM.length > 0)
    .map(({ name, description }) => ({
      title: titleOf(name),
      severity: /^Severity (\w+)\./.exec(description)?.[1] ?? '?',
    }));
}

/** An alarm's name without the stack's. */
export const titleOf = (name: string): string => name.replace(/^[^:]*: /, '');

/** What is wrong: an alarm that its fault does not raise, that is not over after it, or that a clean day raises. */
export function problems(
  synthesized: Synthesized,
  drilled: readonly Drilled[],
  days: readonly CleanDay[],
): readonly string[] {
  const tried = new Set(drilled.flatMap(({ raised }) => raised));
  const titles = new Set(notifying(synthesized).map(({ title }) => title));
  const untried = synthesized.monitoring.alarms.map(({ name }) => titleOf(name)).filter((name) => !tried.has(name));
  return [
    ...[...titles]
      .filter((title) => !drilled.some(({ alarm }) => alarm === title))
      .map((title) => `${title}: no fault`),
    ...untried.map((name) => `${name}: no fault has raised it`),
    ...drilled.flatMap(({ alarm, fault, rangAfter, clearedAfter }) => {
      if (!titles.has(alarm)) return [`${alarm}: the stack has no such alarm`];
      if (rangAfter === undefined) return [`${alarm}: not raised in time. ${fault}`];
      return clearedAfter === undefined ? [`${alarm}: raised for ever. ${fault}`] : [];
    }),
    ...days.flatMap(({ day, raised }) =>
      raised
        .filter(({ name }) => titles.has(titleOf(name)))
        .map(
          ({ name, at, reason }) => `${name}: raised on a clean day of ${day.joins} joins, ${ofTime(at)}: ${reason}`,
        ),
    ),
  ];
}

const ofTime = (ms: number): string => new Date(ms).toISOString().slice(11, 16);

/** Plays a fault, from an ordinary hour until its alarm is over. */
export function drill(synthesized: Synthesized, fault: Fault): Promise<Drilled> {
  return World.with(synthesized, SIZE, async (world) => {
    const { clock, stack } = world;
    const { within = WITHIN_MS } = fault;
    traffic(world);
    await clock.pass(WARM_UP_MS);
    const began = clock.now;
    const changes = (to: 'ALARM' | 'OK'): readonly { name: string; at: number }[] =>
      stack.transitions
        .filter((change) => change.at > began && (change.to === 'ALARM') === (to === 'ALARM'))
        .map(({ name, at }) => ({ name: titleOf(name), at }));
    const rang = (): number | undefined => changes('ALARM').find(({ name }) => name === fault.alarm)?.at;
    const isRaised = (): boolean => {
      const last = stack.transitions.findLast(({ name }) => titleOf(name) === fault.alarm);
      return last?.to === 'ALARM';
    };
    const end = fault.begin(world);
    const mustEnd = (): boolean => {
      const lasted = clock.now - began;
      if (fault.lasts !== undefined) return lasted >= fault.lasts;
      return lasted >= within || clock.now - (rang() ?? clock.now) >= UNTIL_NOTICED_MS;
    };
    while (!mustEnd()) await clock.pass(MINUTE);
    end();
    const ended = clock.now;
    while (clock.now - ended < OVER_WITHIN_MS && (rang() === undefined || isRaised())) await clock.pass(MINUTE);
    const ringing = new Set(notifying(synthesized).map(({ title }) => title));
    const raised = [...new Set(changes('ALARM').map(({ name }) => name))];
    const at = rang();
    const cleared = changes('OK').findLast(({ name }) => name === fault.alarm)?.at;
    return {
      alarm: fault.alarm,
      fault: fault.fault,
      severity: notifying(synthesized).find(({ title }) => title === fault.alarm)?.severity ?? '?',
      rangAfter: at === undefined || at - began > within ? undefined : at - began,
      clearedAfter: cleared === undefined || isRaised() ? undefined : Math.max(0, cleared - ended),
      alsoRang: raised.filter((name) => ringing.has(name) && name !== fault.alarm),
      raised,
    };
  });
}

/** What goes on all the time: users come and go, joins are renewed, connections close, and all users stay. */
function traffic(world: World): void {
  let minute = 0;
  world.every(MINUTE, () => {
    minute += 1;
    world.join();
    world.leave();
    world.renew();
    if (minute % 10 === 0) world.close(0, world.senders[1]?.host);
  });
}
