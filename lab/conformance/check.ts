import { isDeepStrictEqual } from 'node:util';
import type { Subject } from './subject.ts';

/** One requirement of the contract, as a check that can be run. */
export interface Check {
  /** The paragraph of protocol/openapi.yaml that it is from. */
  readonly paragraph: string;
  readonly what: string;
  /** @throws with what is wrong. Returns why it was not checked, or undefined if the requirement is met. */
  run(subject: Subject): Promise<string | undefined>;
}

/** @param run see Check; a result that is not a string has no meaning */
export const check = (paragraph: string, what: string, run: (subject: Subject) => Promise<unknown>): Check => ({
  paragraph,
  what,
  run: async (subject) => {
    const why = await run(subject);
    return typeof why === 'string' ? why : undefined;
  },
});

/** @throws unless the value is the expected one */
export function expectEqual(value: unknown, expected: unknown, what = 'the answer'): void {
  if (!isDeepStrictEqual(value, expected))
    throw new Error(`${what} must be ${JSON.stringify(expected)}, and was ${JSON.stringify(value)}`);
}

/** @throws unless the object has these fields, with these values */
export function expectFields(value: object | undefined, expected: Readonly<Record<string, unknown>>): void {
  const fields = Object.fromEntries(Object.keys(expected).map((name) => [name, value?.[name as keyof object]]));
  expectEqual(fields, expected);
}
