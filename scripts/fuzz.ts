import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { synthesize } from '../local/assembly.ts';
import { ensureServer } from './debian.ts';
import { SERVERS } from '../infra/server-settings.ts';
import { fuzzStanzas } from '../lab/fuzz-stanzas.ts';
import { fuzzWebhook } from '../lab/fuzz-webhook.ts';
import type { Violation } from '../lab/fuzz.ts';
import { isKind } from '../lab/servers.ts';

/**
 * Sends malformed input to both HTTP endpoints, and prints the results. The exit status is 1 if any input had an
 * effect.
 */
const { values } = parseArgs({
  options: {
    webhooks: { type: 'string', default: '100000' },
    stanzas: { type: 'string', default: '20000' },
    /** The seed of the random input. It is printed, so that a run can be repeated. */
    seed: { type: 'string', default: '1' },
    /** Whose stanza API: `--server ejabberd`. */
    server: { type: 'string', default: 'prosody' },
  },
});
const { server } = values;
if (!isKind(server)) {
  process.stderr.write(`--server must be ${Object.keys(SERVERS).join(' or ')}; got ${server}\n`);
  process.exit(1);
}
const seed = Number(values.seed);
const showProgress = (step: string): void => {
  process.stderr.write(process.stderr.isTTY ? `\r\u001b[K${step}` : `${step}\n`);
};

function show(violations: readonly Violation[]): void {
  for (const { input, why, body } of violations)
    process.stdout.write(`\nWRONG: ${why}\n  input: ${input}\n  body: ${body}\n`);
}

ensureServer(server);
const assembly = await mkdtemp(join(tmpdir(), 'ping-muc-fuzz-'));
try {
  await synthesize(assembly, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  const webhook = await fuzzWebhook(assembly, {
    inputs: Number(values.webhooks),
    seed,
    progress: (step) => showProgress(`webhook: ${step}`),
  });
  const stanzas = await fuzzStanzas(server, {
    inputs: Number(values.stanzas),
    seed,
    measured: true,
    progress: (step) => showProgress(`stanza API: ${step}`),
  });
  showProgress('');
  const statuses = (answers: Readonly<Record<string, number>>): string =>
    Object.entries(answers)
      .map(([status, count]) => `${status}: ${count}`)
      .join(', ');
  const shown = (name: 'heapKb' | 'rssMb', divisor: number): string =>
    [stanzas.memory.before, stanzas.memory.after]
      .map((memory) => (memory === undefined ? '–' : (memory[name] / divisor).toFixed(1)))
      .join(' → ');
  const ms = (milliseconds: number): string => `${milliseconds.toFixed(0)} ms`;
  console.table({
    inputs: { webhook: webhook.inputs, 'stanza API': stanzas.inputs },
    answers: { webhook: statuses(webhook.answers), 'stanza API': statuses(stanzas.answers) },
    'by event or stanza': {
      webhook: `${webhook.events.rejected} events rejected, ${webhook.events.accepted} valid ones accepted`,
      'stanza API': statuses(stanzas.stanzas),
    },
    'what had an effect': {
      webhook: `${webhook.rows} rows and ${webhook.executions} executions, all of valid events`,
      'stanza API': 'no stanza',
    },
    'longest stall': {
      webhook: `${ms(webhook.slowest.milliseconds)} (${webhook.slowest.name})`,
      'stanza API': `${ms(stanzas.stall.own)} (${stanzas.stall.worst})`,
    },
    'longest wait of other requests': {
      webhook: '–',
      'stanza API': `${ms(stanzas.stall.wait)} during malformed input, ${ms(stanzas.stall.baseline)} without it`,
    },
    memory: {
      webhook: `${webhook.heldMb.early} MB held after a quarter, ${webhook.heldMb.end} MB at the end`,
      'stanza API': `${shown('heapKb', 1024)} MB in use, ${shown('rssMb', 1)} MB of the process`,
    },
    violations: { webhook: webhook.violations.length, 'stanza API': stanzas.violations.length },
  });
  const violations = [...webhook.violations, ...stanzas.violations];
  show(violations);
  process.stdout.write(
    violations.length === 0
      ? `Seed ${seed}: no malformed input had an effect.\n`
      : `Seed ${seed}: ${violations.length} inputs had an effect that they must not have; see above.\n`,
  );
  process.exitCode = violations.length === 0 ? 0 : 1;
} finally {
  await rm(assembly, { recursive: true, force: true });
}
