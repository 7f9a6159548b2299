import { appendFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';

/** One kind of call that a function makes to AWS. */
export interface Call {
  /** The function's name. */
  readonly caller: string;
  /** As IAM writes it: `dynamodb:PutItem`. */
  readonly action: string;
  /** The ARN. */
  readonly resource: string;
}

export type CallRecorder = (call: Call) => void;

/** IAM's names of the services, by the prefix of `x-amz-target`. */
const SERVICES: Readonly<Record<string, string>> = {
  DynamoDB_20120810: 'dynamodb',
  AWSStepFunctions: 'states',
  secretsmanager: 'secretsmanager',
};

/**
 * Appends calls to a file, one JSON object a line, so that a test can hold them against the permissions that the stack
 * grants. Each distinct call once, so the file stays short however long it runs.
 */
export function callRecorder(file: string): CallRecorder {
  const seen = new Set<string>();
  return (call) => {
    const line = JSON.stringify(call);
    if (seen.has(line)) return;
    seen.add(line);
    appendFileSync(file, `${line}\n`);
  };
}

/** The action, as IAM writes it, of a request's `x-amz-target`. */
export function calledAction(target: string): string {
  const [prefix = '', operation = ''] = target.split('.');
  return `${SERVICES[prefix] ?? prefix}:${operation}`;
}

/** Whose access key signed the request; each function's is its name. */
export function caller(request: IncomingMessage): string {
  return /Credential=([^/]+)\//.exec(request.headers.authorization ?? '')?.[1] ?? '';
}
