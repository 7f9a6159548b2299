const MINUTE_MS = 60_000;
const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', MINUTE_MS],
  ['s', 1000],
] as const;

/** A duration in its largest unit, or in its two largest: 3 min, 1 h 20 min, 0.4 s. */
export function duration(milliseconds: number): string {
  const rest = Math.max(0, milliseconds);
  if (rest < 1000) return `${(rest / 1000).toFixed(1)} s`;
  const index = UNITS.findIndex(([, size]) => rest >= size);
  const [name, size] = UNITS[index] ?? ['s', 1000];
  const smaller = UNITS[index + 1];
  const whole = Math.floor(rest / size);
  const remainder = smaller === undefined ? 0 : Math.floor((rest - whole * size) / smaller[1]);
  return remainder > 0 && smaller !== undefined ? `${whole} ${name} ${remainder} ${smaller[0]}` : `${whole} ${name}`;
}

/** How far a moment is from now: 3 min ago, in 12 s, now. */
export function distance(at: number, now: number): string {
  const difference = at - now;
  if (Math.abs(difference) < 1000) return 'now';
  if (difference > 0) return `in ${duration(difference)}`;
  // the seconds of what is minutes ago would only distract
  return `${duration(-difference < MINUTE_MS ? -difference : -difference - (-difference % MINUTE_MS))} ago`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hour12: false,
});
const DAY = new Intl.DateTimeFormat(undefined, { day: '2-digit', month: 'short' });

/** The time of day, with the day if it is not today. */
export function clock(at: number, now = Date.now()): string {
  const isToday = new Date(at).toDateString() === new Date(now).toDateString();
  return isToday ? CLOCK.format(at) : `${DAY.format(at)} ${CLOCK.format(at)}`;
}

export const number = (value: number): string => value.toLocaleString('en', { maximumFractionDigits: 2 });

export const plural = (count: number, noun: string): string => `${number(count)} ${noun}${count === 1 ? '' : 's'}`;

/** An alarm's name without the stack's name. */
export const shortName = (name: string): string => name.replace(/^[^:]*: /, '');

/** The page of an alarm: its place on the page of alarms. */
export const alarmAnchor = (name: string): string => name.replaceAll(/\W+/g, '-');
