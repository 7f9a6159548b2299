import type { AlarmState } from './views.ts';

/**
 * Rules of composite alarms: `ALARM("name")`, `OK("name")`, `INSUFFICIENT_DATA("name")`, `TRUE`, `FALSE`, `NOT`,
 * `AND`, `OR` and parentheses. A name may be without quotes, or an ARN. AND binds more than OR, and NOT more than AND.
 *
 * "PutCompositeAlarm", parameter AlarmRule:
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html
 */
export type Rule =
  | { readonly kind: 'constant'; readonly value: boolean }
  | { readonly kind: 'state'; readonly state: AlarmState; readonly alarm: string }
  | { readonly kind: 'not'; readonly rule: Rule }
  | { readonly kind: 'AND' | 'OR'; readonly left: Rule; readonly right: Rule };

const TOKEN =
  /\s*(?:(ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*(?:"([^"]+)"|([^()"]*[^()"\s]))\s*\)|(TRUE|FALSE|AND|OR|NOT)\b|([()]))/y;

interface Token {
  readonly word: string;
  /** Of the three functions. */
  readonly alarm: string | undefined;
}

/** @throws if the rule cannot be read */
export function parseRule(text: string): Rule {
  const tokens = tokenize(text);
  let next = 0;
  const fail = (): never => {
    throw new Error(`the alarm rule "${text}" cannot be read at ${tokens[next]?.word ?? 'its end'}`);
  };
  const accepts = (word: string): boolean => {
    if (tokens[next]?.word !== word) return false;
    next += 1;
    return true;
  };
  const primary = (): Rule => {
    if (accepts('NOT')) return { kind: 'not', rule: primary() };
    if (accepts('(')) {
      const inner = either();
      return accepts(')') ? inner : fail();
    }
    const { word, alarm } = tokens[next] ?? fail();
    if (alarm !== undefined) {
      next += 1;
      return { kind: 'state', state: word as AlarmState, alarm: alarmName(alarm) };
    }
    if (word !== 'TRUE' && word !== 'FALSE') return fail();
    next += 1;
    return { kind: 'constant', value: word === 'TRUE' };
  };
  const both = (): Rule => {
    let left = primary();
    while (accepts('AND')) left = { kind: 'AND', left, right: primary() };
    return left;
  };
  const either = (): Rule => {
    let left = both();
    while (accepts('OR')) left = { kind: 'OR', left, right: both() };
    return left;
  };
  const rule = either();
  return next === tokens.length ? rule : fail();
}

function tokenize(text: string): readonly Token[] {
  const tokens: Token[] = [];
  const rest = text.trimEnd();
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < rest.length) {
    const from = TOKEN.lastIndex;
    const match = TOKEN.exec(rest);
    if (match === null) throw new Error(`the alarm rule "${text}" cannot be read at ${rest.slice(from)}`);
    const [, state, quoted, plain, word, parenthesis] = match;
    tokens.push({
      word: state ?? word ?? parenthesis ?? '',
      alarm: state === undefined ? undefined : (quoted ?? plain),
    });
  }
  return tokens;
}

/** An alarm's name, from its name or its ARN. */
export const alarmName = (nameOrArn: string): string =>
  /^arn:[^:]+:cloudwatch:[^:]*:\d*:alarm:(.+)$/.exec(nameOrArn)?.[1] ?? nameOrArn;

/** The names of the alarms in a rule. */
export function alarmsIn(rule: Rule): readonly string[] {
  switch (rule.kind) {
    case 'constant':
      return [];
    case 'state':
      return [rule.alarm];
    case 'not':
      return alarmsIn(rule.rule);
    default:
      return [...alarmsIn(rule.left), ...alarmsIn(rule.right)];
  }
}

/** @param stateOf the state of an alarm by its name */
export function evaluateRule(rule: Rule, stateOf: (alarm: string) => AlarmState): boolean {
  switch (rule.kind) {
    case 'constant':
      return rule.value;
    case 'state':
      return stateOf(rule.alarm) === rule.state;
    case 'not':
      return !evaluateRule(rule.rule, stateOf);
    case 'AND':
      return evaluateRule(rule.left, stateOf) && evaluateRule(rule.right, stateOf);
    case 'OR':
      return evaluateRule(rule.left, stateOf) || evaluateRule(rule.right, stateOf);
  }
}

/** The alarms whose state ALARM makes a rule true, or can. */
export function alarmsOf(rule: Rule): readonly string[] {
  if (rule.kind === 'AND' || rule.kind === 'OR') return [...alarmsOf(rule.left), ...alarmsOf(rule.right)];
  return rule.kind === 'state' && rule.state === 'ALARM' ? [rule.alarm] : [];
}
