import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Secrets } from '../../functions/adapters/secrets.ts';
import { SecretError, decodeSecret } from '../../functions/core/signature.ts';
import { type Endpoint, listen } from '../../lab/endpoint.ts';

const ONE = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;
const TWO = `whsec_${Buffer.alloc(32, 2).toString('base64')}`;

let manager: Endpoint | undefined;
afterEach(async () => {
  vi.restoreAllMocks();
  await manager?.close();
});

/** A Secrets Manager that holds these strings, one after the other; undefined: it is out of order. */
async function holding(
  ...values: (string | undefined)[]
): Promise<{ secrets: Secrets; looks: () => number; later: (seconds: number) => void }> {
  const endpoint = await listen((_request, response, n) => {
    const value = values[Math.min(n, values.length) - 1];
    const [status, body] =
      value === undefined
        ? [400, { __type: 'ResourceNotFoundException', message: 'no such secret' }]
        : [200, { ARN: 'arn', Name: 'name', SecretString: value }];
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(body));
  });
  manager = endpoint;
  const client = new SecretsManagerClient({
    endpoint: endpoint.url,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
  });
  let passed = 0;
  const real = performance.now.bind(performance);
  vi.spyOn(performance, 'now').mockImplementation(() => real() + passed * 1000);
  return {
    secrets: new Secrets(client, 'arn'),
    looks: () => endpoint.received.length,
    later: (seconds) => (passed += seconds),
  };
}

const stored = (current: unknown, previous?: unknown): string => JSON.stringify({ current, previous });

describe('the live secrets', () => {
  it('are the current and the previous one, in this order', async () => {
    const { secrets } = await holding(stored(ONE, TWO));
    expect(await secrets.keys()).toEqual([ONE, TWO].map(decodeSecret));
  });

  it.each([
    ['missing', stored(ONE)],
    ['empty', stored(ONE, '')],
    ['null', stored(ONE, null)],
  ])('are one where the previous is %s', async (_what, value) => {
    const { secrets } = await holding(value);
    expect(await secrets.keys()).toEqual([decodeSecret(ONE)]);
  });

  it('are looked up once, by however many who ask at once, and used for five minutes', async () => {
    const { secrets, looks, later } = await holding(stored(ONE), stored(TWO));
    const asked = await Promise.all([secrets.keys(), secrets.keys(), secrets.keys()]);
    expect(asked).toEqual(Array.from({ length: 3 }, () => [decodeSecret(ONE)]));
    later(299);
    expect(await secrets.keys()).toEqual([decodeSecret(ONE)]);
    expect(looks()).toBe(1);
    later(2);
    expect(await secrets.keys()).toEqual([decodeSecret(TWO)]);
    expect(looks()).toBe(2);
  });

  it('stay in use while they cannot be fetched again, and the log says so', async () => {
    const logged: string[] = [];
    vi.spyOn(process.stdout, 'write').mockImplementation((line) => logged.push(String(line)) > 0);
    const { secrets, looks, later } = await holding(stored(ONE), undefined, stored(TWO));
    await secrets.keys();
    later(301);
    expect(await secrets.keys()).toEqual([decodeSecret(ONE)]);
    expect(looks()).toBe(2);
    expect(logged.join('')).toContain('could not be fetched again');
    later(301);
    expect(await secrets.keys()).toEqual([decodeSecret(TWO)]);
  });

  it('are looked up again on request, but not within 15 seconds of the last look', async () => {
    const { secrets, looks, later } = await holding(stored(ONE), stored(TWO));
    await secrets.keys();
    later(14);
    expect(await secrets.renewed()).toBeUndefined();
    expect(looks()).toBe(1);
    later(2);
    expect(await secrets.renewed()).toEqual([decodeSecret(TWO)]);
    expect(await secrets.renewed()).toBeUndefined();
    expect(await secrets.keys()).toEqual([decodeSecret(TWO)]);
    expect(looks()).toBe(2);
  });

  it('that could not be fetched are fetched again for the next request', async () => {
    const { secrets } = await holding(undefined, stored(ONE));
    await expect(secrets.keys()).rejects.toThrow('no such secret');
    expect(await secrets.keys()).toEqual([decodeSecret(ONE)]);
  });

  const body = Buffer.alloc(20, 1).toString('base64');
  it.each([
    ['is too short', stored(`whsec_${body}`)],
    ['is not base64', stored(`whsec_${body}!!!!!!!!!!!!`)],
    ['is a previous one that is too short', stored(ONE, `whsec_${body}`)],
    ['is not in JSON', `whsec_${body}`],
    ['is cut off', `{"current":"whsec_${body}`],
    ['is bare', JSON.stringify(`whsec_${body}`)],
    ['goes by another name', JSON.stringify({ secret: `whsec_${body}` })],
    ['is in a list', JSON.stringify([`whsec_${body}`])],
    ['is no text', stored({ key: body })],
    ['is null', 'null'],
    ['is empty', ''],
  ])('never appear in the error when one %s', async (_what, value) => {
    const { secrets } = await holding(value);
    const error: unknown = await secrets.keys().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(SecretError);
    expect(`${(error as Error).stack} ${JSON.stringify(error)} ${String((error as Error).cause)}`).not.toContain(
      body.slice(0, 8),
    );
  });
});
