import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { nextStep } from '../../local/next-step.ts';
import { writePrivateFile } from '../../local/private-file.ts';

const settings = 'ping_muc_secret = "whsec_of-this-test"\n';
const started = { data: '/var/lib/ping-muc', server: 'prosody', settings, console: 'http://127.0.0.1:8788/' } as const;

describe('what is printed after the start', () => {
  it('is on a terminal what to do next, and the settings', () => {
    const [first, ...rest] = nextStep({ ...started, isTerminal: true }).split('\n');
    expect(first).toMatch(/^Next: add the lines below.* in \/var\/lib\/ping-muc\/prosody-settings\.lua.*Prosody/);
    expect(rest.join('\n')).toBe(`See what happens at http://127.0.0.1:8788/\n\n${settings}\n`);
  });

  it('is elsewhere, for example in a journal, the file with the settings, and never the secret', () => {
    const text = nextStep({ ...started, isTerminal: false });
    expect(text.split('\n', 1)[0]).toMatch(
      /^Next: .*\/var\/lib\/ping-muc\/prosody-settings\.lua .*: npm run settings -- --data \/var\/lib\/ping-muc$/,
    );
    expect(text).not.toContain('whsec_');
  });

  it('names the server that is to be configured, and how to see its settings', () => {
    expect(nextStep({ ...started, server: 'ejabberd', isTerminal: false })).toMatch(
      /ejabberd-settings\.yml to ejabberd's configuration, and restart ejabberd\..* --data \S+ --for ejabberd$/m,
    );
  });

  it('names no console if there is none', () => {
    expect(nextStep({ ...started, console: undefined, isTerminal: false })).not.toContain('See what happens');
  });
});

describe('a private file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ping-muc-private-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('is for its owner alone, whatever was there before', async () => {
    const file = join(folder, 'settings');
    for (const name of [file, `${file}.new`]) writeFileSync(name, 'old and long', { mode: 0o644 });
    await writePrivateFile(file, 'new');
    expect(readFileSync(file, 'utf8')).toBe('new');
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });
});
