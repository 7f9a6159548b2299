import fc from 'fast-check';
import { type Key, decodeSecret, sign } from '../functions/core/signature.ts';

/**
 * What the fuzzers of both HTTP endpoints have in common: strange values, mangled bytes, and the loop that sends them.
 */

export interface Violation {
  /** The source of the input: the name of a seed, or the random seed, part and index that reproduce it. */
  readonly input: string;
  readonly why: string;
  readonly body: string;
}

export interface FuzzOptions {
  /** The number of random inputs, in addition to the named seeds. */
  readonly inputs: number;
  readonly seed: number;
  readonly progress?: (step: string) => void;
}

/** More violations than this add nothing new. */
const MAX_VIOLATIONS = 10;
/** Inputs that are generated at a time. */
const PART = 250;
/** The maximum length of a body in a violation, in characters. */
const MAX_SHOWN = 2000;

/** Counts answers by name, and keeps the violations. */
export class Tally {
  readonly counts: Record<string, number> = {};
  readonly violations: Violation[] = [];

  count(name: string, more = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + more;
  }

  violate(input: string, why: string, body: Buffer): void {
    const text = body.toString('latin1').slice(0, MAX_SHOWN);
    if (this.violations.length < MAX_VIOLATIONS) this.violations.push({ input, why, body: JSON.stringify(text) });
  }

  get isFull(): boolean {
    return this.violations.length >= MAX_VIOLATIONS;
  }
}

/** Generates random inputs and sends them, some at a time, until there are too many violations. */
export async function fuzz<Input>(
  arbitrary: fc.Arbitrary<Input>,
  { inputs, seed, progress = () => undefined }: FuzzOptions,
  tally: Tally,
  atOnce: number,
  send: (input: Input, name: string) => Promise<void>,
): Promise<void> {
  for (let part = 0; part * PART < inputs && !tally.isFull; part += 1) {
    const size = Math.min(PART, inputs - part * PART);
    const drawn = fc.sample(arbitrary, { seed: seed + part, numRuns: size });
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let index = next++; index < size; index = next++)
        await send(drawn[index] as Input, `seed ${seed}, part ${part}, input ${index}`);
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
    progress(`${part * PART + size} of ${inputs} inputs`);
  }
}

/** Text that often causes faults. */
const NAMED_TEXT = [
  '',
  ' ',
  '\t',
  '\n',
  '\r\n',
  '\u0000',
  'a\u0000b',
  '\u0001',
  '\u007f',
  '\u0085',
  '\u00a0',
  '\u2028',
  '\u202e',
  '\ufeff',
  '\ufffd',
  '\ufffe',
  '\uffff',
  '\ud800',
  '\udc00',
  '\udfff\ud800',
  'a\ud83d',
  '😀',
  '👩‍👩‍👧',
  'e\u0301',
  'ﷺ',
  'ß',
  'İ',
  'K',
  'ａ',
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'valueOf',
  'hasOwnProperty',
  'then',
  'length',
  'null',
  'undefined',
  'true',
  'NaN',
  'Infinity',
  'nil',
  '0',
  '-0',
  '-1',
  '1',
  '1e400',
  '0x10',
  '１',
  '301',
  '1000000',
  '9007199254740993',
  '99999999999999999999',
  '@',
  '/',
  '//',
  '#',
  '.',
  '..',
  'a@',
  '@a',
  'a@b',
  'a@b@c',
  'a@b/',
  'a@b/c',
  '/c',
  'b/c',
  'a b',
  'a@b c',
  '[::1]',
  'xn--a',
  'xn--',
  'a..b',
  'a.',
  '\\',
  '\\20',
  'a\\27b@c',
  '<',
  '>',
  '&',
  '"',
  "'",
  ']]>',
  '<!--',
  '&amp;',
  '&#0;',
  '&lol;',
  '%',
  '%s',
  '%n',
  '%00',
  '${a}',
  '{{a}}',
  '$(a)',
  '`a`',
  "' OR 1=1 --",
  '../../etc/passwd',
  'JOIN#a#b',
  'file:///etc/passwd',
];

/** Text of all kinds: strange, very long, with any code unit. */
export const strangeText: fc.Arbitrary<string> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...NAMED_TEXT) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 30 }) },
  {
    weight: 2,
    arbitrary: fc.string({
      unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)),
      maxLength: 12,
    }),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(
        fc.constantFrom(...NAMED_TEXT, 'a', 'é'),
        fc.constantFrom(2, 127, 128, 129, 256, 257, 1023, 1024, 1025, 3072, 5000),
      )
      .map(([text, times]) => text.repeat(times)),
  },
);

/** A change to bytes: a flipped bit, or bytes that are deleted, inserted, overwritten, repeated or cut off. */
type Damage =
  | { readonly kind: 'flip'; readonly at: number; readonly bit: number }
  | { readonly kind: 'delete' | 'repeat'; readonly at: number; readonly length: number }
  | { readonly kind: 'insert' | 'overwrite'; readonly at: number; readonly what: Buffer }
  | { readonly kind: 'cut'; readonly at: number };

const place = fc.nat({ max: 1_000_000 });

/** @param tokens text that has a meaning in the format */
const damage = (tokens: readonly string[]): fc.Arbitrary<Damage> => {
  const what = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...tokens).map((token) => Buffer.from(token)) },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom('00', 'ff', 'fe', 'c0af', 'eda080', 'f4908080', 'efbbbf', '80', 'e28080', 'f09f')
        .map((hex) => Buffer.from(hex, 'hex')),
    },
    { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 8 }).map((bytes) => Buffer.from(bytes)) },
  );
  return fc.oneof(
    fc.record({ kind: fc.constant('flip' as const), at: place, bit: fc.nat({ max: 7 }) }),
    fc.record({
      kind: fc.constantFrom('delete' as const, 'repeat' as const),
      at: place,
      length: fc.integer({ min: 1, max: 60 }),
    }),
    fc.record({ kind: fc.constantFrom('insert' as const, 'overwrite' as const), at: place, what }),
    fc.record({ kind: fc.constant('cut' as const), at: place }),
  );
};

function inflict(bytes: Buffer, harm: Damage): Buffer {
  const at = bytes.length === 0 ? 0 : harm.at % bytes.length;
  const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
  switch (harm.kind) {
    case 'flip': {
      const copy = Buffer.from(bytes);
      if (copy.length > 0) copy[at] = (copy[at] as number) ^ (1 << harm.bit);
      return copy;
    }
    case 'delete':
      return Buffer.concat([before, after.subarray(harm.length)]);
    case 'repeat':
      return Buffer.concat([before, after.subarray(0, harm.length), after]);
    case 'insert':
      return Buffer.concat([before, harm.what, after]);
    case 'overwrite':
      return Buffer.concat([before, harm.what, after.subarray(harm.what.length)]);
    case 'cut':
      return before;
  }
}

/** Damaged good bodies, and random bytes. */
export const mangled = (samples: readonly string[], tokens: readonly string[]): fc.Arbitrary<Buffer> =>
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc
        .tuple(fc.constantFrom(...samples), fc.array(damage(tokens), { minLength: 1, maxLength: 4 }))
        .map(([sample, harms]) => harms.reduce(inflict, Buffer.from(sample))),
    },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)) },
    {
      weight: 1,
      arbitrary: fc.array(fc.constantFrom(...tokens), { maxLength: 30 }).map((all) => Buffer.from(all.join(''))),
    },
  );

/** How a request is signed. All but `right` must be refused with 401. */
export type Signing = 'right' | 'none' | 'wrong secret' | 'old' | 'other body' | 'strange headers';

export const signing: fc.Arbitrary<Signing> = fc.oneof(
  { weight: 25, arbitrary: fc.constant<Signing>('right') },
  { weight: 3, arbitrary: fc.constantFrom<Signing>('none', 'wrong secret', 'old', 'other body', 'strange headers') },
);

/** The secret of the endpoint that is fuzzed, and another one. */
export const SECRET = decodeSecret(Buffer.alloc(32, 'fuzz').toString('base64'));
/** The same, as a setting of the module. */
export const WEBHOOK_SECRET = `whsec_${SECRET.toString('base64')}`;
const WRONG = decodeSecret(Buffer.alloc(32, 'zzuf').toString('base64'));

interface Signable {
  readonly body: Buffer;
  readonly signing: Signing;
  /** Values for the three headers of a signature. */
  readonly strange: readonly string[];
}

/** The headers of a signed request, or of one whose signature is missing or wrong in the given way. */
export function signedHeaders(given: Signable, messageId: string): Record<string, string> {
  const seconds = Math.floor(Date.now() / 1000);
  const [id = '', timestamp = '', signature = ''] = given.strange;
  const signed = (key: Key, at = seconds, body = given.body): Record<string, string> => ({
    ...sign([key], messageId, at, body),
  });
  switch (given.signing) {
    case 'right':
      return signed(SECRET);
    case 'none':
      return {};
    case 'wrong secret':
      return signed(WRONG);
    case 'old':
      return signed(SECRET, seconds - 400);
    case 'other body':
      return signed(SECRET, seconds, Buffer.concat([given.body, Buffer.from(' ')]));
    case 'strange headers':
      return { ...signed(SECRET), 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature };
  }
}
