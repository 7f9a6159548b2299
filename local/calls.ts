import type { IncomingMessage } from 'node:http';

/** A call that a function makes to AWS. */
export interface Call {
  /** The function's name. */
  readonly caller: string;
  /** As IAM names it: `dynamodb:PutItem`. */
  readonly action: string;
  /** The ARN. */
  readonly resource: string;
}

/** Is called for each call that a function makes to AWS. */
export type CallRecorder = (call: Call) => void;

/** IAM's names of the services, by the prefix of `x-amz-target`. */
const SERVICES: Readonly<Record<string, string>> = {
  DynamoDB_20120810: 'dynamodb',
  AWSStepFunctions: 'states',
  secretsmanager: 'secretsmanager',
};

/** The IAM action for a request's `x-amz-target`. */
export function calledAction(target: string): string {
  const [prefix = '', operation = ''] = target.split('.');
  return `${SERVICES[prefix] ?? prefix}:${operation}`;
}

/** The access key id that signed the request. Each function's id is the function's name. */
export function caller(request: IncomingMessage): string {
  return /Credential=([^/]+)\//.exec(request.headers.authorization ?? '')?.[1] ?? '';
}
