import { createHmac, timingSafeEqual } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { Parser, type Element } from '@xmpp/xml';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { CONTRACT_VERSION, WEBHOOK_TIME } from '../../functions/names.ts';

type Json = Record<string, unknown>;

const protocol = new URL('../../protocol/', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, protocol), 'utf8');
const readJson = (path: string): unknown => JSON.parse(read(path));

const ajv = new Ajv2020({ allErrors: true });
const validators = new Map<string, ValidateFunction>();
function validator(schema: string): ValidateFunction {
  const known = validators.get(schema);
  if (known !== undefined) return known;
  const made = ajv.compile(readJson(schema) as Json);
  validators.set(schema, made);
  return made;
}

const openapi = parseYaml(read('openapi.yaml')) as Json;

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null;

function* objects(value: unknown): Generator<Json> {
  if (!isObject(value)) return;
  yield value;
  for (const child of Object.values(value)) yield* objects(child);
}

/** The object at a path of openapi.yaml, with references inside the file followed. */
function at(...path: string[]): Json {
  let value: unknown = openapi;
  for (const step of path) {
    value = isObject(value) ? value[step] : undefined;
    while (isObject(value) && typeof value['$ref'] === 'string' && value['$ref'].startsWith('#/')) {
      value = at(...value['$ref'].slice(2).split('/'));
    }
  }
  if (!isObject(value)) throw new Error(`openapi.yaml has nothing at ${path.join('/')}`);
  return value;
}

interface Sample {
  readonly file: string;
  readonly schema: string | undefined;
  readonly status: string;
}

function samplesOf(content: unknown, status = 'request'): Sample[] {
  if (!isObject(content)) return [];
  return Object.values(content).flatMap((media) => {
    const { schema, examples } = media as {
      schema: { $ref?: string };
      examples: Record<string, { externalValue: string }>;
    };
    return Object.values(examples).map(({ externalValue }) => ({ file: externalValue, schema: schema.$ref, status }));
  });
}

const statuses = {
  '/webhooks': ['200', '400', '401', '413', '429', '503'],
  '/stanzas': ['200', '400', '401', '413', '415', '429', '503'],
};

const samples = Object.entries(statuses).flatMap(([path, answers]) => [
  ...samplesOf(at('paths', path, 'post', 'requestBody')['content']),
  ...answers.flatMap((status) => samplesOf(at('paths', path, 'post', 'responses', status)['content'], status)),
]);

describe('openapi.yaml', () => {
  it('is OpenAPI 3.1 and says what each request answers', () => {
    expect(openapi['openapi']).toMatch(/^3\.1\./);
    expect(Object.keys(at('paths'))).toEqual(Object.keys(statuses));
    for (const [path, answers] of Object.entries(statuses)) {
      expect(Object.keys(at('paths', path, 'post', 'responses'))).toEqual(answers);
    }
  });

  it('asks for the three headers of Standard Webhooks on both requests', () => {
    for (const path of Object.keys(statuses)) {
      const parameters = Object.keys(at('paths', path, 'post', 'parameters'));
      const names = parameters
        .map((index) => at('paths', path, 'post', 'parameters', index))
        .map(({ name, required }) => [name, required]);
      expect(names).toEqual([
        ['webhook-id', true],
        ['webhook-timestamp', true],
        ['webhook-signature', true],
      ]);
    }
  });

  it('says how long to wait with every 429 and 503', () => {
    for (const path of Object.keys(statuses)) {
      for (const status of ['429', '503']) {
        expect(at('paths', path, 'post', 'responses', status, 'headers')).toHaveProperty('Retry-After');
      }
    }
  });

  it('refers only to what exists', () => {
    const references = [...objects(openapi)]
      .flatMap((object) => [object['$ref'], object['externalValue']])
      .filter((value) => typeof value === 'string');
    expect(references.length).toBeGreaterThan(0);
    for (const reference of references) {
      if (reference.startsWith('#/')) expect(() => at(...reference.slice(2).split('/')), reference).not.toThrow();
      else expect(existsSync(new URL(reference, protocol)), reference).toBe(true);
    }
  });

  it('shows an example header that the signing vectors bear out', () => {
    const example = (name: string): unknown => at('components', 'parameters', name)['example'];
    const [vector] = vectors.sign;
    expect([example('webhook-id'), example('webhook-timestamp'), example('webhook-signature')]).toEqual([
      vector?.id,
      vector?.timestamp,
      vector?.signature,
    ]);
  });
});

describe('the time that a webhook may take', () => {
  const { answerWithinSeconds, functionTimeoutSeconds, gatewaySeconds, senderWaitsSeconds } = WEBHOOK_TIME;

  it('grows from the inner limit to the outer one', () => {
    const limits = [answerWithinSeconds, functionTimeoutSeconds, gatewaySeconds, senderWaitsSeconds];
    for (const [index, limit] of limits.slice(1).entries())
      expect(limit - (limits[index] ?? 0)).toBeGreaterThanOrEqual(5);
    expect(gatewaySeconds, 'what an HTTP API gives at most').toBe(30);
  });

  it('is what the contract says', () => {
    const text = String(at('paths', '/webhooks', 'post')['description']).replaceAll(/\s+/g, ' ');
    expect(text).toContain(`A receiver answers within ${answerWithinSeconds} seconds`);
    expect(text).toContain(`may take ${gatewaySeconds} seconds in all`);
    expect(text).toContain(`A sender waits at least ${senderWaitsSeconds} seconds`);
    expect(text).toContain('After a time-out or a 503 its next batch is half as large');
  });

  it('is what the module of Prosody waits', () => {
    const folder = new URL('../prosody/mod_ping_muc_webhook/', protocol);
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.lua'));
    const waits = files.flatMap((name) =>
      [...readFileSync(new URL(name, folder), 'utf8').matchAll(/ANSWER_WITHIN = (\d+)/g)].map(([, seconds]) =>
        Number(seconds),
      ),
    );
    expect(waits).toEqual([senderWaitsSeconds]);
  });
});

describe('samples', () => {
  it('are all shown in openapi.yaml, but for the signing vectors', () => {
    const shown = new Set(samples.map(({ file }) => file));
    const present = readdirSync(new URL('samples/', protocol)).map((name) => `samples/${name}`);
    expect([...shown, 'samples/signature.json'].sort()).toEqual(present.sort());
  });

  const withSchema = samples.flatMap(({ file, schema, status }) =>
    schema === undefined ? [] : [{ file, schema, status }],
  );

  it.each(withSchema)('$file matches $schema ($status)', ({ file, schema, status }) => {
    const sample = readJson(file);
    const validate = validator(schema);
    validate(sample);
    expect(validate.errors ?? []).toEqual([]);
    if (schema === 'problem.schema.json') expect(sample).toHaveProperty('status', Number(status));
  });

  it('hold events in the order of at', () => {
    for (const { file } of withSchema.filter(({ schema }) => schema === 'webhook.schema.json')) {
      const moments = (readJson(file) as { events: { at: number }[] }).events.map((event) => event.at);
      expect(moments, file).toEqual([...new Set(moments)].sort((a, b) => a - b));
    }
  });

  it('hold a nick and a room that need escaping', () => {
    const { events } = readJson('samples/webhook-batch.json') as { events: Json[] };
    const nick = events.map((event) => event['nick']).find((value) => typeof value === 'string' && value.includes('"'));
    for (const character of [' ', "'", '"', '&', '<', '/', '🦊']) expect(nick).toContain(character);
    expect(events.map((event) => event['room'])).toContain('d\\27artagnan@muc.host');
    expect(stanzas('samples/stanzas-request.xml').map(({ attrs }) => attrs['from'] as unknown)).toContain(
      `d\\27artagnan@muc.host/${String(nick)}`,
    );
  });
});

describe('schemas', () => {
  const event = (sample: string, change: Json): unknown => {
    const { host, events } = readJson(sample) as { host: string; events: Json[] };
    return { host, events: [{ ...events[0], ...change }] };
  };
  const joined = (change: Json): unknown => event('samples/webhook-joined.json', change);
  const left = (change: Json): unknown => event('samples/webhook-left.json', change);
  const closed = (change: Json): unknown => event('samples/webhook-closed.json', change);
  const requested = (change: Json): unknown => event('samples/webhook-requested.json', change);
  const heartbeat = (change: Json): unknown => ({
    host: 'example.net',
    events: [],
    queue: { length: 1, oldest: 2, ...change },
  });
  /** As JSON has it: what is undefined is left out. */
  const sent = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

  const broken: [reason: string, schema: string, value: unknown, keyword: string, where: string][] = [
    ['no object', 'webhook.schema.json', [], 'type', ''],
    ['no host', 'webhook.schema.json', { events: [] }, 'required', ''],
    ['a host with a localpart', 'webhook.schema.json', { host: 'user@example.net', events: [] }, 'pattern', '/host'],
    ['no events', 'webhook.schema.json', { host: 'example.net' }, 'required', ''],
    ['events that are no list', 'webhook.schema.json', { host: 'example.net', events: {} }, 'type', '/events'],
    [
      'more than 1,000 events',
      'webhook.schema.json',
      { host: 'example.net', events: Array.from({ length: 1001 }, () => ({})) },
      'maxItems',
      '/events',
    ],
    [
      'an event that is no object',
      'webhook.schema.json',
      { host: 'example.net', events: ['muc.joined'] },
      'oneOf',
      '/events/0',
    ],
    ['an unknown type', 'webhook.schema.json', joined({ type: 'muc.kicked' }), 'oneOf', '/events/0'],
    ['no type', 'webhook.schema.json', joined({ type: undefined }), 'required', '/events/0'],
    ['no at', 'webhook.schema.json', joined({ at: undefined }), 'required', '/events/0'],
    ['at as text', 'webhook.schema.json', joined({ at: '1795355000123456' }), 'type', '/events/0/at'],
    ['at with a fraction', 'webhook.schema.json', joined({ at: 1795355000123456.5 }), 'type', '/events/0/at'],
    ['at in seconds', 'webhook.schema.json', joined({ at: 1795355000 }), 'minimum', '/events/0/at'],
    ['at in milliseconds', 'webhook.schema.json', joined({ at: 1795355000123 }), 'minimum', '/events/0/at'],
    ['at in nanoseconds', 'webhook.schema.json', joined({ at: 1.795355e18 }), 'maximum', '/events/0/at'],
    ['a join without a nick', 'webhook.schema.json', joined({ nick: undefined }), 'required', '/events/0'],
    ['an empty nick', 'webhook.schema.json', joined({ nick: '' }), 'minLength', '/events/0/nick'],
    [
      'a nick that is too long',
      'webhook.schema.json',
      joined({ nick: 'n'.repeat(1024) }),
      'maxLength',
      '/events/0/nick',
    ],
    [
      'a user without a resource',
      'webhook.schema.json',
      joined({ user: 'user@example.net' }),
      'pattern',
      '/events/0/user',
    ],
    [
      'a user without a localpart',
      'webhook.schema.json',
      left({ user: 'example.net/phone' }),
      'pattern',
      '/events/0/user',
    ],
    [
      'a room with a nick',
      'webhook.schema.json',
      joined({ room: 'room@muc.host/nickname' }),
      'pattern',
      '/events/0/room',
    ],
    ['a room without a localpart', 'webhook.schema.json', left({ room: 'muc.host' }), 'pattern', '/events/0/room'],
    ['a room with a space', 'webhook.schema.json', left({ room: 'my room@muc.host' }), 'pattern', '/events/0/room'],
    ['a leave without a user', 'webhook.schema.json', left({ user: undefined }), 'required', '/events/0'],
    ['a leave without a room', 'webhook.schema.json', left({ room: undefined }), 'required', '/events/0'],
    ['a close without a remote', 'webhook.schema.json', closed({ remote: undefined }), 'required', '/events/0'],
    [
      'a remote that is no host',
      'webhook.schema.json',
      closed({ remote: 'room@muc.host' }),
      'pattern',
      '/events/0/remote',
    ],
    [
      'an unknown direction',
      'webhook.schema.json',
      closed({ direction: 'bidirectional' }),
      'enum',
      '/events/0/direction',
    ],
    [
      'a reason that is too long',
      'webhook.schema.json',
      closed({ reason: 'r'.repeat(257) }),
      'maxLength',
      '/events/0/reason',
    ],
    ['no delay', 'webhook.schema.json', closed({ delay: undefined }), 'required', '/events/0'],
    ['a delay of 0', 'webhook.schema.json', closed({ delay: 0 }), 'minimum', '/events/0/delay'],
    ['a delay of more than a day', 'webhook.schema.json', closed({ delay: 86401 }), 'maximum', '/events/0/delay'],
    ['a time-out of 0', 'webhook.schema.json', closed({ timeout: 0 }), 'minimum', '/events/0/timeout'],
    ['a time-out of more than 300', 'webhook.schema.json', closed({ timeout: 301 }), 'maximum', '/events/0/timeout'],
    ['a patience below 0', 'webhook.schema.json', closed({ patience: -1 }), 'minimum', '/events/0/patience'],
    [
      'a patience of more than a day',
      'webhook.schema.json',
      closed({ patience: 86401 }),
      'maximum',
      '/events/0/patience',
    ],
    ['dry_run as text', 'webhook.schema.json', closed({ dry_run: 'false' }), 'type', '/events/0/dry_run'],
    ['reenter as text', 'webhook.schema.json', closed({ reenter: 'true' }), 'type', '/events/0/reenter'],
    [
      'a limit of notices below 0',
      'webhook.schema.json',
      closed({ notice_limit: -1 }),
      'minimum',
      '/events/0/notice_limit',
    ],
    ['half a notice', 'webhook.schema.json', requested({ notice_limit: 0.5 }), 'type', '/events/0/notice_limit'],
    ['a share above 1', 'webhook.schema.json', closed({ notice_share: 1.01 }), 'maximum', '/events/0/notice_share'],
    [
      'a queue that is no object',
      'webhook.schema.json',
      { host: 'example.net', events: [], queue: 3 },
      'type',
      '/queue',
    ],
    ['a queue without its age', 'webhook.schema.json', heartbeat({ oldest: undefined }), 'required', '/queue'],
    ['a queue without its length', 'webhook.schema.json', heartbeat({ length: undefined }), 'required', '/queue'],
    ['an age below 0', 'webhook.schema.json', heartbeat({ oldest: -1 }), 'minimum', '/queue/oldest'],
    ['no dry_run', 'webhook.schema.json', closed({ dry_run: undefined }), 'required', '/events/0'],
    [
      'a check for silence without a room',
      'webhook.schema.json',
      requested({ room: undefined, cause: 'silence' }),
      'required',
      '/events/0',
    ],
    ['a check without a remote', 'webhook.schema.json', requested({ remote: undefined }), 'required', '/events/0'],
    ['a check without a cause', 'webhook.schema.json', requested({ cause: undefined }), 'required', '/events/0'],
    [
      'a check for the cause that has an event of its own',
      'webhook.schema.json',
      requested({ cause: 'close' }),
      'enum',
      '/events/0/cause',
    ],
    ['a check with a delay below 0', 'webhook.schema.json', requested({ delay: -1 }), 'minimum', '/events/0/delay'],
    ['a check with a time-out of 0', 'webhook.schema.json', requested({ timeout: 0 }), 'minimum', '/events/0/timeout'],
    ['nothing rejected and not said so', 'webhook-answer.schema.json', { accepted: 1 }, 'required', ''],
    ['accepted below 0', 'webhook-answer.schema.json', { accepted: -1, rejected: [] }, 'minimum', '/accepted'],
    [
      'a rejection without its place',
      'webhook-answer.schema.json',
      { accepted: 0, rejected: [{ error: 'no' }] },
      'required',
      '/rejected/0',
    ],
    [
      'a rejection without an error',
      'webhook-answer.schema.json',
      { accepted: 0, rejected: [{ index: 0 }] },
      'required',
      '/rejected/0',
    ],
    [
      'a place that no event has',
      'webhook-answer.schema.json',
      { accepted: 0, rejected: [{ index: 1000, error: 'no' }] },
      'maximum',
      '/rejected/0/index',
    ],
    [
      'a problem without a detail',
      'problem.schema.json',
      { type: 'about:blank', title: 'Bad Request', status: 400 },
      'required',
      '',
    ],
    [
      'a problem with the status of no error',
      'problem.schema.json',
      { type: 'about:blank', title: 'OK', status: 200, detail: 'fine' },
      'enum',
      '/status',
    ],
    [
      'a problem of a type of its own',
      'problem.schema.json',
      { type: 'urn:x', title: 'Bad Request', status: 400, detail: 'x' },
      'const',
      '/type',
    ],
  ];

  it.each(broken)('refuse %s (%s)', (_reason, schema, value, keyword, where) => {
    const validate = validator(schema);
    expect(validate(sent(value))).toBe(false);
    expect(validate.errors).toContainEqual(expect.objectContaining({ keyword, instancePath: where }));
  });

  const taken: [what: string, schema: string, value: unknown][] = [
    ['no events at all', 'webhook.schema.json', { host: 'example.net', events: [] }],
    ['an IPv6 literal for a host', 'webhook.schema.json', { host: '[2001:db8::1]', events: [] }],
    [
      'unknown fields of a request',
      'webhook.schema.json',
      { host: 'example.net', events: [], sent_by: 'a later version' },
    ],
    ['unknown fields of an event', 'webhook.schema.json', joined({ role: 'moderator' })],
    ['a heartbeat with unknown fields', 'webhook.schema.json', heartbeat({ longest: 3 })],
    ['a close of a server that knows no limit of notices', 'webhook.schema.json', closed({})],
    ['a limit of notices', 'webhook.schema.json', requested({ notice_limit: 1_000_000, notice_share: 0 })],
    ['a close of a server that knows no re-entry', 'webhook.schema.json', closed({ reenter: undefined })],
    [
      'a check for each cause',
      'webhook.schema.json',
      {
        host: 'example.net',
        events: ['room-error', 'silence', 'operator'].flatMap(
          (cause) => (requested({ cause }) as { events: Json[] }).events,
        ),
      },
    ],
    ['a check of a server that knows no re-entry', 'webhook.schema.json', requested({ reenter: undefined })],
    ['a check of all rooms on a host', 'webhook.schema.json', requested({ room: undefined })],
    ['a check after a delay', 'webhook.schema.json', requested({ delay: 86_400 })],
    ['a close without a reason', 'webhook.schema.json', closed({ reason: undefined })],
    ['a resource with spaces, @ and /', 'webhook.schema.json', left({ user: 'user@example.net/at home @ 2/3' })],
    [
      'unknown fields of an answer',
      'webhook-answer.schema.json',
      { accepted: 0, rejected: [{ index: 0, error: 'no', field: 'at' }], took: 3 },
    ],
    [
      'unknown fields of a problem',
      'problem.schema.json',
      { type: 'about:blank', title: 'Bad Request', status: 400, detail: 'x', instance: '/1' },
    ],
  ];

  it.each(taken)('take %s (%s)', (_what, schema, value) => {
    const validate = validator(schema);
    validate(sent(value));
    expect(validate.errors ?? []).toEqual([]);
  });
});

/** The stanzas of an XML sample. */
function stanzas(file: string): Element[] {
  const roots: Element[] = [];
  const found: Element[] = [];
  const parser = new Parser();
  parser.on('start', (element: Element) => roots.push(element));
  parser.on('element', (element: Element) => found.push(element));
  parser.on('error', (error: Error) => {
    throw error;
  });
  parser.write(read(file));
  expect(roots.map(({ name }) => name)).toEqual(['xmpp']);
  return found;
}

const tags = (element: Element | undefined): Element[] =>
  (element?.children ?? []).filter((child): child is Element => typeof child !== 'string');

it('its version is the one that both sides and the samples state', () => {
  const module = readFileSync(new URL('../prosody/mod_ping_muc_webhook/contract.lib.lua', protocol), 'utf8');
  const stated = /^local VERSION = "(.*)";/m.exec(module)?.[1];
  const sample = /^<xmpp .*version="(.*?)"/.exec(read('samples/stanzas-answer.xml'))?.[1];
  const { version: answered } = JSON.parse(read('samples/webhook-answer-accepted.json')) as {
    readonly version: string;
  };
  const version = at('info')['version'];
  expect([CONTRACT_VERSION, stated, sample, answered]).toEqual([version, version, version, version]);
});

describe('stanza samples', () => {
  it('ask for one of each of the four kinds, in order', () => {
    const kinds = stanzas('samples/stanzas-request.xml').map((stanza) => [
      stanza.name,
      stanza.attrs['type'] as unknown,
      ...tags(stanza).map(({ attrs }) => attrs['xmlns'] as unknown),
    ]);
    expect(kinds).toEqual([
      ['iq', 'get', 'urn:xmpp:ping', 'urn:ping-muc:0'],
      ['iq', 'get', 'http://jabber.org/protocol/disco#info'],
      ['presence', 'unavailable', 'http://jabber.org/protocol/muc#user', 'urn:ping-muc:0'],
      ['presence', undefined, 'http://jabber.org/protocol/muc', 'urn:ping-muc:0'],
    ]);
  });

  it('show every kind of answer under the id that names it, with by only where the server answers itself', () => {
    const kinds = stanzas('samples/stanzas-answer.xml').map((stanza) => {
      const error = stanza.getChild('error');
      const conditions = tags(error).map(({ name }) => name);
      return [
        stanza.attrs['id'],
        stanza.name,
        error?.attrs['type'] ?? 'result',
        error?.attrs['by'] ?? '',
        conditions.join(' '),
      ] as string[];
    });
    expect(kinds).toEqual([
      ['ping-result', 'iq', 'result', '', ''],
      ['ping-proof', 'iq', 'result', '', ''],
      ['disco-result', 'iq', 'result', '', ''],
      ['ping-not-acceptable', 'iq', 'cancel', '', 'not-acceptable text'],
      ['ping-item-not-found', 'iq', 'cancel', '', 'item-not-found'],
      ['ping-remote-server-not-found', 'iq', 'cancel', '', 'remote-server-not-found text'],
      ['ping-remote-server-timeout', 'iq', 'wait', 'example.net', 'remote-server-timeout closed'],
      ['ping-no-answer', 'iq', 'wait', 'example.net', 'remote-server-timeout no-answer closed'],
      ['ping-recipient-unavailable', 'iq', 'cancel', 'example.net', 'recipient-unavailable'],
      ['ping-conflict', 'iq', 'cancel', 'example.net', 'conflict'],
      ['ping-policy-violation', 'iq', 'modify', 'example.net', 'policy-violation text'],
      ['notice-recipient-unavailable', 'presence', 'cancel', 'example.net', 'recipient-unavailable'],
      ['notice-conflict', 'presence', 'cancel', 'example.net', 'conflict'],
      ['notice-rejoining', 'presence', 'cancel', 'example.net', 'conflict rejoining'],
      ['reentry-success', 'presence', 'result', '', ''],
      ['reentry-missed', 'presence', 'result', '', ''],
      ['reentry-registration-required', 'presence', 'auth', '', 'registration-required text'],
      ['reentry-recipient-unavailable', 'presence', 'cancel', 'example.net', 'recipient-unavailable'],
      ['reentry-conflict', 'presence', 'cancel', 'example.net', 'conflict'],
      ['reentry-rejoining', 'presence', 'cancel', 'example.net', 'conflict rejoining'],
      ['reentry-no-answer', 'presence', 'wait', 'example.net', 'remote-server-timeout no-answer closed'],
      ['reentry-remote-server-not-found', 'presence', 'cancel', 'example.net', 'remote-server-not-found closed'],
      ['reentry-resource-constraint', 'presence', 'wait', 'example.net', 'resource-constraint'],
      ['reentry-feature-not-implemented', 'presence', 'cancel', 'example.net', 'feature-not-implemented'],
      ['reentry-unexpected-request', 'presence', 'wait', 'example.net', 'unexpected-request'],
      ['reentry-item-not-found', 'presence', 'cancel', 'example.net', 'item-not-found'],
    ]);
  });

  it('a re-entry that was let in has no type, says 110, and says where lines are missing', () => {
    const back = stanzas('samples/stanzas-answer.xml').filter(
      ({ name, attrs }) => name === 'presence' && attrs['type'] === undefined,
    );
    const missed = back.map((stanza) => stanza.getChild('reentry', 'urn:ping-muc:0')?.attrs['missed'] as unknown);
    expect(missed).toEqual([undefined, 'yes']);
    for (const stanza of back)
      expect(stanza.getChild('x', 'http://jabber.org/protocol/muc#user')?.getChild('status')?.attrs['code']).toBe(
        '110',
      );
  });

  it('swap from and to: a room answers a session, a session (by its server) a notice', () => {
    for (const { attrs } of stanzas('samples/stanzas-answer.xml')) {
      const { id, from, to } = attrs as Record<string, string>;
      const [room, session] = id?.startsWith('notice-') ? [to, from] : [from, to];
      expect(room, id).toMatch(/^[^@/]+@muc\.host(\/.+)?$/);
      expect(session, id).toMatch(/^[^@/]+@example\.net\/.+$/);
    }
  });
});

interface Vector {
  readonly name: string;
  readonly secrets: readonly string[];
  readonly id: string;
  readonly timestamp: string;
  readonly body: string;
  readonly signature: string;
}

const vectors = readJson('samples/signature.json') as {
  secrets: Record<string, { hex: string; secret: string }>;
  sign: Vector[];
  verify: (Vector & { accepted: boolean; now: number })[];
};

// Written out once more, apart from the functions' own, so that the vectors are checked and not the functions.
const hmac = (secret: string, { id, timestamp, body }: Vector): Buffer =>
  createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64'))
    .update(`${id}.${timestamp}.${body}`, 'utf8')
    .digest();

function accepts(vector: Vector, now: number): boolean {
  if (!/^[0-9]+$/.test(vector.timestamp) || Math.abs(now - Number(vector.timestamp)) > 300) return false;
  const given = vector.signature
    .split(' ')
    .filter((one) => one.startsWith('v1,'))
    .map((one) => Buffer.from(one.slice(3), 'base64'));
  return vector.secrets
    .map((secret) => hmac(secret, vector))
    .some((mine) => given.some((theirs) => mine.length === theirs.length && timingSafeEqual(mine, theirs)));
}

describe('signature.json', () => {
  it.each(Object.entries(vectors.secrets))(
    'spells the %s secret as whsec_ and the base64 of 32 bytes',
    (_name, { hex, secret }) => {
      expect(secret).toBe(`whsec_${Buffer.from(hex, 'hex').toString('base64')}`);
      expect(Buffer.from(hex, 'hex')).toHaveLength(32);
    },
  );

  it.each(vectors.sign)('signs: $name', (vector) => {
    expect(vector.secrets.map((secret) => `v1,${hmac(secret, vector).toString('base64')}`).join(' ')).toBe(
      vector.signature,
    );
  });

  it.each(vectors.verify)('verifies: $name ($accepted)', (vector) => {
    expect(accepts(vector, vector.now)).toBe(vector.accepted);
  });
});
