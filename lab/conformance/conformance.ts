import { API_CHECKS } from './api-checks.ts';
import type { Check } from './check.ts';
import { JOIN_CHECKS } from './join-checks.ts';
import { type Options, Subject } from './subject.ts';
import { WEBHOOK_CHECKS } from './webhook-checks.ts';

export interface Result {
  readonly check: Check;
  /** What is wrong. */
  readonly fault?: string;
  /** Why it was not checked. */
  readonly omitted?: string;
}

/** Checks a server against the contract. @param report is called after each check. @throws if nobody can log in */
export async function checkConformance(
  options: Options,
  report: (result: Result) => void = () => undefined,
): Promise<readonly Result[]> {
  const subject = await Subject.open(options);
  const results: Result[] = [];
  try {
    // the last ones look at the webhooks that the others have caused
    for (const check of [...API_CHECKS, ...JOIN_CHECKS, ...WEBHOOK_CHECKS]) {
      const result = await outcome(check, subject);
      results.push(result);
      report(result);
    }
    return results;
  } finally {
    await subject.close();
  }
}

async function outcome(check: Check, subject: Subject): Promise<Result> {
  try {
    const omitted = await check.run(subject);
    return { check, ...(omitted !== undefined && { omitted }) };
  } catch (error) {
    return { check, fault: error instanceof Error ? error.message : String(error) };
  }
}
