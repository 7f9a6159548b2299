import { expect, it } from 'vitest';
import { fuzzStanzas } from '../../lab/fuzz-stanzas.ts';
import { fuzzWebhook } from '../../lab/fuzz-webhook.ts';
import { ROLES } from '../../lab/servers.ts';

/** A busy machine needs minutes, a quiet one half a minute. */
const MOST_MS = 240_000;
/** A short run of `npm run fuzz`: the harmful seeds, and the same random inputs each time. */
const SEED = 20_250_614;

it(
  'the webhook answers bad input with 4xx or a list of rejected events, and stores none of them',
  async () => {
    const { violations, answers, rows, events } = await fuzzWebhook(process.env['PING_MUC_ASSEMBLY'] ?? '', {
      inputs: 3000,
      seed: SEED,
    });
    expect(violations).toEqual([]);
    expect(Object.keys(answers).sort()).toEqual(['200', '400', '401', '413']);
    expect(Math.min(rows, events.accepted, events.rejected)).toBeGreaterThan(0); // a few were right
  },
  MOST_MS,
);

it(
  'the stanza API answers bad input with 4xx or an error for each stanza, and sends nothing',
  async () => {
    const { violations, answers, stanzas } = await fuzzStanzas(ROLES.users, {
      inputs: 1000,
      seed: SEED,
      measured: false,
    });
    expect(violations).toEqual([]);
    expect(Object.keys(answers)).toEqual(expect.arrayContaining(['200', '400', '401', '413', '415']));
    expect(Object.keys(stanzas).sort()).toEqual(['conflict', 'policy-violation', 'recipient-unavailable']);
  },
  MOST_MS,
);
