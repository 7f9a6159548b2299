import type { ServerResponse } from 'node:http';
import { DeleteItemCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { afterEach, describe, expect, it } from 'vitest';
import { AWS_CLIENT, PATIENT_AWS_CLIENT } from '../../functions/adapters/aws.ts';
import { type Endpoint, listen } from '../../lab/endpoint.ts';

let aws: Endpoint | undefined;
afterEach(() => aws?.close());

const TO_LOCAL = { region: 'eu-central-1', credentials: { accessKeyId: 'local', secretAccessKey: 'local' } };
const done = (response: ServerResponse): unknown =>
  response.writeHead(200, { 'content-type': 'application/x-amz-json-1.0' }).end('{}');
const throttle = (response: ServerResponse): unknown => {
  const body = {
    __type: 'com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException',
    message: 'too much',
  };
  return response.writeHead(400, { 'content-type': 'application/x-amz-json-1.0' }).end(JSON.stringify(body));
};

/** Deletes a row at an AWS with scripted answers. @param share of the times that a call may take */
async function client(
  settings: typeof AWS_CLIENT | typeof PATIENT_AWS_CLIENT,
  answer: Parameters<typeof listen>[0],
  share = 1,
): Promise<(key: string) => Promise<unknown>> {
  aws = await listen(answer);
  const { requestTimeout, socketTimeout } = settings.requestHandler;
  const requestHandler = {
    ...settings.requestHandler,
    requestTimeout: requestTimeout * share,
    socketTimeout: socketTimeout * share,
  };
  const dynamodb = new DynamoDBClient({ ...TO_LOCAL, ...settings, requestHandler, endpoint: aws.url });
  return (key) => dynamodb.send(new DeleteItemCommand({ TableName: 'Joins', Key: { pk: { S: key }, sk: { S: key } } }));
}

describe.each([
  ['a webhook’s', AWS_CLIENT],
  ['a check’s', PATIENT_AWS_CLIENT],
])('%s call to AWS ends', (_whose, settings) => {
  it.each<[string, (response: ServerResponse) => unknown]>([
    ['is never answered', () => undefined],
    [
      'begins to be answered, and goes no further',
      (response) =>
        response.writeHead(200, { 'content-type': 'application/x-amz-json-1.0', 'content-length': 100 }).write('{'),
    ],
  ])('that %s, after three tries', async (_what, answer) => {
    const send = await client(settings, (_request, response) => answer(response), 0.01);
    await expect(send('a')).rejects.toMatchObject({ name: 'TimeoutError' });
    expect(aws?.received).toHaveLength(3);
  });
});

describe('a check’s patience with a table that throttles', () => {
  it('is enough for all calls that are under way at a time, each of which is throttled four times', async () => {
    const tries = new Map<string, number>();
    const send = await client(PATIENT_AWS_CLIENT, ({ body }: { readonly body: Buffer }, response: ServerResponse) => {
      const key = body.toString();
      tries.set(key, (tries.get(key) ?? 0) + 1);
      return (tries.get(key) ?? 0) <= 4 ? throttle(response) : done(response);
    });
    await Promise.all(Array.from({ length: 64 }, (_, index) => send(String(index))));
    expect([...tries.values()]).toEqual(Array.from({ length: 64 }, () => 5));
  }, 20_000);

  it('has an end', async () => {
    const { random } = Math;
    Math.random = () => 0;
    try {
      const send = await client(PATIENT_AWS_CLIENT, (_request, response) => throttle(response));
      await expect(send('a')).rejects.toMatchObject({ name: 'ProvisionedThroughputExceededException' });
      expect(aws?.received).toHaveLength(10);
    } finally {
      Math.random = random;
    }
  });

  it('is not spent on what no second try can change', async () => {
    const refusal = { __type: 'com.amazon.coral.service#AccessDeniedException', message: 'no' };
    const send = await client(PATIENT_AWS_CLIENT, (_request, response) =>
      response.writeHead(400, { 'content-type': 'application/x-amz-json-1.0' }).end(JSON.stringify(refusal)),
    );
    await expect(send('a')).rejects.toMatchObject({ name: 'AccessDeniedException' });
    expect(aws?.received).toHaveLength(1);
  });
});
