import { SFNClient } from '@aws-sdk/client-sfn';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { Workflow, executionName } from '../../functions/adapters/workflow.ts';
import type { CheckRequest } from '../../functions/core/events.ts';
import { type Endpoint, listen } from '../../lab/endpoint.ts';

const T = 1_795_355_000;
const close: CheckRequest = {
  host: 'example.net',
  remote: 'muc.host',
  at: T * 1e6,
  delay: 60,
  timeout: 45,
  patience: 600,
  dryRun: true,
  reenter: false,
  cause: 'close',
};

describe('the name of a check', () => {
  it('begins with the remote host and the moment, which an operator looks for', () => {
    expect(executionName(close)).toMatch(/^muc-host-1795355000000000-[0-9a-f]{12}$/);
  });

  it('is one that Step Functions takes, whatever the host', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.domain(),
          fc.string({ minLength: 1, maxLength: 1023 }),
          fc.constantFrom('[2001:db8::1]', 'h'.repeat(1023)),
        ),
        fc.integer({ min: 1e15, max: Number.MAX_SAFE_INTEGER }),
        (remote, at) => {
          expect(executionName({ ...close, remote, at })).toMatch(/^[0-9A-Za-z_-]{1,80}$/);
        },
      ),
    );
  });

  it('is the same for each report of a close, and another for each other close', () => {
    expect(executionName({ ...close, delay: 5, dryRun: false })).toBe(executionName(close));
    const others = [
      { at: close.at + 1 },
      { host: 'example.org' },
      { remote: 'muc-host' },
      { remote: 'muc.host2' },
      { remote: `${'h'.repeat(60)}1` },
      { remote: `${'h'.repeat(60)}2` },
    ];
    expect(new Set([close, ...others.map((other) => ({ ...close, ...other }))].map(executionName)).size).toBe(7);
  });
});

it('the name of a room’s check is that room’s alone, and not that of its host’s close', () => {
  const of = (room?: string): string =>
    executionName({ ...close, ...(room === undefined ? {} : { room, cause: 'silence' }) });
  expect(new Set([of(), of('room@muc.host'), of('other@muc.host')]).size).toBe(3);
  expect(of('room@muc.host')).toMatch(/^muc-host-1795355000000000-[0-9a-f]{12}$/);
  expect(
    of(),
    'as the release before names it, so that a report which comes again after an upgrade starts nothing',
  ).toBe('muc-host-1795355000000000-8160bf7d1c46');
});

describe('starting a check', () => {
  let endpoint: Endpoint | undefined;
  afterEach(() => endpoint?.close());

  async function workflow(status: number, body: object): Promise<Workflow> {
    endpoint = await listen((_request, response) =>
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.0' }).end(JSON.stringify(body)),
    );
    return new Workflow(
      new SFNClient({
        endpoint: endpoint.url,
        region: 'eu-central-1',
        maxAttempts: 1,
        credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
      }),
      'arn:machine',
    );
  }

  it('hands over the close, what is left of its delay, and when it is due by our own clock', async () => {
    const machine = await workflow(200, { executionArn: 'arn', startDate: T });
    expect(await machine.start(close, T + 12, T + 5000)).toBe(true);
    const request = JSON.parse(endpoint?.received[0]?.body.toString() ?? '') as {
      name: string;
      stateMachineArn: string;
      input: string;
    };
    expect(request).toMatchObject({ name: executionName(close), stateMachineArn: 'arn:machine' });
    expect(JSON.parse(request.input)).toMatchObject({
      ...close,
      id: executionName(close),
      wait: 48,
      due: T + 5048,
      closedAt: T + 4988,
      next: 'wait',
      round: 0,
      open: 0,
      totals: { pinged: 0, notified: 0 },
    });
  });

  it('a second time starts nothing, and is no error', async () => {
    const machine = await workflow(400, {
      __type: 'com.amazonaws.swf.service.v2.model#ExecutionAlreadyExists',
      message: 'exists',
    });
    expect(await machine.start(close, T, T)).toBe(false);
  });

  it('fails where it cannot be known to have been started', async () => {
    const machine = await workflow(400, {
      __type: 'com.amazonaws.swf.service.v2.model#StateMachineDoesNotExist',
      message: 'no such machine',
    });
    await expect(machine.start(close, T, T)).rejects.toThrow('no such machine');
  });
});
