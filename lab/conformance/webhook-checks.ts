import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { decodeSecret, verify } from '../../functions/core/signature.ts';
import { type Check, check, expectEqual } from './check.ts';
import type { Webhook } from './receiver.ts';
import type { Subject } from './subject.ts';

/** All webhooks that the other checks have caused. */

const MAX_BYTES = 262_144;
const schema = JSON.parse(
  readFileSync(new URL('../../protocol/webhook.schema.json', import.meta.url), 'utf8'),
) as object;
const isWebhook = new Ajv2020({ strict: false }).compile(schema);

const each = (paragraph: string, what: string, isRight: (webhook: Webhook, subject: Subject) => void): Check =>
  check(paragraph, what, async (subject) => {
    await Promise.resolve();
    for (const webhook of subject.receiver.webhooks) isRight(webhook, subject);
  });

export const WEBHOOK_CHECKS: readonly Check[] = [
  each('Signatures', 'every webhook is signed, with the current time', ({ headers, body, at }, subject) => {
    verify([decodeSecret(subject.options.secret)], headers as Record<string, string>, body, at / 1000);
    const id = String(headers['webhook-id']);
    expectEqual(/^[A-Za-z0-9_-]{1,128}$/.test(id), true, `that the webhook-id (${id}) has the form of the contract`);
  }),
  each('Retries', 'a webhook-id belongs to one body, and a retry has a newer timestamp', (webhook, subject) => {
    const same = subject.receiver.webhooks.filter(
      ({ headers }) => headers['webhook-id'] === webhook.headers['webhook-id'],
    );
    const stamps = same.map(({ headers }) => headers['webhook-timestamp']);
    expectEqual(new Set(stamps).size, stamps.length, 'the number of different timestamps of one webhook-id');
    expectEqual(new Set(same.map(({ body }) => body.toString())).size, 1, 'the number of bodies of one webhook-id');
  }),
  each('Report joins, leaves and closes', 'every webhook is valid by webhook.schema.json', ({ headers, body }) => {
    expectEqual(headers['content-type']?.split(';')[0], 'application/json', 'the content type');
    expectEqual(body.length <= MAX_BYTES, true, 'that it has at most 262,144 bytes');
    if (!isWebhook(JSON.parse(body.toString())))
      throw new Error(`${body.toString()}: ${JSON.stringify(isWebhook.errors)}`);
  }),
  each('Report joins, leaves and closes', 'every webhook is about the host of the user', ({ body }, subject) => {
    expectEqual((JSON.parse(body.toString()) as { host: unknown }).host, subject.host, 'host');
  }),
  each('Order', 'the events of a webhook are in the order of at', ({ events }) => {
    const moments = events.map(({ at }) => at);
    expectEqual(
      moments,
      moments.toSorted((a, b) => a - b),
      'the order',
    );
  }),
  check('Order', 'no two events have the same at', async ({ receiver: { events } }) => {
    await Promise.resolve();
    expectEqual(new Set(events.map(({ at }) => at)).size, events.length, 'the number of different moments');
  }),
  check('Heartbeats', 'the server sends heartbeats', async ({ receiver: { webhooks } }) => {
    await Promise.resolve();
    return webhooks.some(({ hasQueue }) => hasQueue) ? undefined : 'none came in this time';
  }),
];
