import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SecretError, SignatureError, decodeSecret, sign, verify } from '../../functions/core/signature.ts';

interface Vector {
  readonly name: string;
  readonly secrets: readonly string[];
  readonly id: string;
  readonly timestamp: string;
  readonly body: string;
  readonly signature: string;
}
const vectors = JSON.parse(readFileSync(new URL('../../protocol/samples/signature.json', import.meta.url), 'utf8')) as {
  sign: Vector[];
  verify: (Vector & { accepted: boolean; now: number })[];
};

const [CURRENT, PREVIOUS] = [decodeSecret(`whsec_${'Y'.repeat(43)}=`), decodeSecret(`whsec_${'Z'.repeat(44)}`)];
const NOW = 1_795_355_000;
const body = Buffer.from('{"host":"example.net"}');

const signedWith = (keys: Parameters<typeof sign>[0], timestamp = NOW): Record<string, string> => ({
  ...sign(keys, 'msg_1', timestamp, body),
});

/** Why a message is refused. */
function refusal(headers: Partial<Record<string, string>>, now = NOW, keys = [CURRENT]): SignatureError | undefined {
  try {
    verify(keys, headers, body, now);
    return undefined;
  } catch (error) {
    if (error instanceof SignatureError) return error;
    throw error;
  }
}

describe('the vectors of the contract', () => {
  it.each(vectors.sign)('sign: $name', ({ secrets, id, timestamp, body: text, signature }) => {
    expect(sign(secrets.map(decodeSecret), id, Number(timestamp), Buffer.from(text))).toEqual({
      'webhook-id': id,
      'webhook-timestamp': timestamp,
      'webhook-signature': signature,
    });
  });

  it.each(vectors.verify)(
    'verify: $name ($accepted)',
    ({ secrets, id, timestamp, body: text, signature, now, accepted }) => {
      const headers = { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature };
      const verifying = (): unknown => verify(secrets.map(decodeSecret), headers, Buffer.from(text), now);
      if (accepted) expect(verifying()).toEqual({ id, timestamp: Number(timestamp) });
      else expect(verifying).toThrow(SignatureError);
    },
  );
});

describe('verify', () => {
  const signed = signedWith([CURRENT]);

  it('takes what is at most 300 s away by our clock, to the fraction, either way', () => {
    expect(refusal(signed, NOW + 300)).toBeUndefined();
    expect(refusal(signed, NOW - 300)).toBeUndefined();
    expect(refusal(signed, NOW + 300.5)).toMatchObject({
      reason: 'clock',
      message: expect.stringContaining('behind this clock') as string,
    });
    expect(refusal(signed, NOW - 300.5)).toMatchObject({
      reason: 'clock',
      message: expect.stringContaining('ahead of this clock') as string,
    });
  });

  it('tells only those who know the secret how our clock stands', () => {
    expect(refusal(signedWith([PREVIOUS], NOW - 9999))).toMatchObject({ reason: 'mismatch' });
  });

  it('takes a message that both sides share one of their two secrets for', () => {
    const [old, fresh] = [decodeSecret('a'.repeat(32)), decodeSecret('b'.repeat(32))];
    expect(refusal(signedWith([CURRENT, old]), NOW, [fresh, CURRENT])).toBeUndefined();
    expect(refusal(signedWith([CURRENT, old]), NOW, [fresh, PREVIOUS])).toMatchObject({ reason: 'mismatch' });
  });

  it.each(['webhook-id', 'webhook-timestamp', 'webhook-signature'])('asks for the header %s', (name) => {
    expect(refusal({ ...signed, [name]: undefined })).toMatchObject({ reason: 'missing' });
    expect(refusal({ ...signed, [name]: '' })).toMatchObject({ reason: 'missing' });
  });

  it.each([
    ['an id with a space', { 'webhook-id': 'msg 1' }],
    ['an id of 256 characters', { 'webhook-id': 'm'.repeat(256) }],
    ['a timestamp with a fraction', { 'webhook-timestamp': `${NOW}.5` }],
    ['a negative timestamp', { 'webhook-timestamp': '-1' }],
    ['a timestamp in milliseconds', { 'webhook-timestamp': `${NOW}000` }],
    ['a timestamp with letters', { 'webhook-timestamp': `${NOW}x` }],
  ])('refuses %s before it computes anything', (_what, header) => {
    expect(refusal({ ...signed, ...header })).toMatchObject({ reason: 'malformed' });
  });

  it('looks at four signatures and no more', () => {
    const others = (count: number): string => Array.from({ length: count }, () => 'v1,AAAA').join(' ');
    expect(refusal({ ...signed, 'webhook-signature': `${others(3)} ${signed['webhook-signature']}` })).toBeUndefined();
    expect(refusal({ ...signed, 'webhook-signature': `${others(4)} ${signed['webhook-signature']}` })).toMatchObject({
      reason: 'mismatch',
    });
  });

  it('accepts nothing where there is no secret', () => {
    expect(refusal(signed, NOW, [])).toMatchObject({ reason: 'mismatch' });
  });
});

describe('decodeSecret', () => {
  it('takes 24 to 64 bytes, with the prefix and without, padded or not', () => {
    for (const size of [24, 32, 64]) {
      const base64 = Buffer.alloc(size, 7).toString('base64');
      for (const secret of [base64, `whsec_${base64}`, `whsec_${base64.replaceAll('=', '')}`])
        expect(decodeSecret(secret)).toEqual(Buffer.alloc(size, 7));
    }
  });

  it.each([
    ['too short', Buffer.alloc(23, 7).toString('base64')],
    ['too long', Buffer.alloc(65, 7).toString('base64')],
    ['not base64', 'correct horse battery staple!!!!'],
    ['base64url', Buffer.alloc(32, 0xff).toString('base64url')],
    ['with a line break', `${Buffer.alloc(32, 7).toString('base64')}\n`],
    ['empty', ''],
  ])('refuses a secret that is %s, and never shows it', (_what, secret) => {
    const decoding = (): unknown => decodeSecret(`whsec_${secret}`);
    expect(decoding).toThrow(SecretError);
    expect(decoding).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining(secret || 'nothing') as string }) as Error,
    );
  });
});
