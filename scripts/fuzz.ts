import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { synthesize } from '../local/assembly.ts';
import { ensurePackage } from './debian.ts';
import { fuzzStanzas } from '../lab/fuzz-stanzas.ts';
import { fuzzWebhook } from '../lab/fuzz-webhook.ts';
import type { Violation } from '../lab/fuzz.ts';

/** Throws bad input at both doors and prints what they made of it. The status is 1 if any of it did what it should not. */
const { values } = parseArgs({
  options: {
    webhooks: { type: 'string', default: '100000' },
    stanzas: { type: 'string', default: '20000' },
    /** What is drawn; printed, so that a run can be repeated. */
    seed: { type: 'string', default: '1' },
  },
});
const seed = Number(values.seed);
const say = (step: string): void => {
  process.stderr.write(process.stderr.isTTY ? `\r\u001b[K${step}` : `${step}\n`);
};

function show(violations: readonly Violation[]): void {
  for (const { input, why, body } of violations)
    process.stdout.write(`\nWRONG: ${why}\n  input: ${input}\n  body: ${body}\n`);
}

ensurePackage('prosody', 'prosody');
const assembly = await mkdtemp(join(tmpdir(), 'ping-muc-bench-'));
try {
  await synthesize(assembly, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  const webhook = await fuzzWebhook(assembly, {
    inputs: Number(values.webhooks),
    seed,
    progress: (step) => say(`webhook: ${step}`),
  });
  const stanzas = await fuzzStanzas({
    inputs: Number(values.stanzas),
    seed,
    measured: true,
    progress: (step) => say(`stanza API: ${step}`),
  });
  say('');
  const statuses = (answers: Readonly<Record<string, number>>): string =>
    Object.entries(answers)
      .map(([status, count]) => `${status}: ${count}`)
      .join(', ');
  const ms = (milliseconds: number): string => `${milliseconds.toFixed(0)} ms`;
  console.table({
    inputs: { webhook: webhook.inputs, 'stanza API': stanzas.inputs },
    answers: { webhook: statuses(webhook.answers), 'stanza API': statuses(stanzas.answers) },
    'one by one': {
      webhook: `${webhook.events.rejected} events rejected, ${webhook.events.accepted} good ones accepted`,
      'stanza API': statuses(stanzas.stanzas),
    },
    'what got through': {
      webhook: `${webhook.rows} rows and ${webhook.executions} executions, all of good events`,
      'stanza API': 'no stanza',
    },
    'longest stall': {
      webhook: `${ms(webhook.slowest.milliseconds)} (${webhook.slowest.name})`,
      'stanza API': `${ms(stanzas.stall.own)} (${stanzas.stall.worst})`,
    },
    'longest wait of others': {
      webhook: '–',
      'stanza API': `${ms(stanzas.stall.wait)} beside a seed, ${ms(stanzas.stall.baseline)} beside nothing`,
    },
    memory: {
      webhook: `${webhook.heldMb.early} MB held after a quarter, ${webhook.heldMb.end} MB at the end`,
      'stanza API': `Lua ${(stanzas.luaKb.before / 1024).toFixed(1)} → ${(stanzas.luaKb.after / 1024).toFixed(1)} MB, process ${stanzas.rssMb.before.toFixed(0)} → ${stanzas.rssMb.after.toFixed(0)} MB`,
    },
    violations: { webhook: webhook.violations.length, 'stanza API': stanzas.violations.length },
  });
  const violations = [...webhook.violations, ...stanzas.violations];
  show(violations);
  process.stdout.write(
    violations.length === 0
      ? `Seed ${seed}: nothing bad got in, and nothing broke.\n`
      : `Seed ${seed}: the doors do not hold.\n`,
  );
  process.exitCode = violations.length === 0 ? 0 : 1;
} finally {
  await rm(assembly, { recursive: true, force: true });
}
