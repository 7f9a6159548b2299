import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const CHECK = fileURLToPath(new URL('../../scripts/node-version.cjs', import.meta.url));
const { isSupported } = createRequire(import.meta.url)(CHECK) as { isSupported: (version: string) => boolean };
const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

describe('the check of the version of Node', () => {
  it('accepts what runs TypeScript as it is', () => {
    const versions = [
      '18.20.8',
      '20.20.2',
      '21.7.3',
      '22.17.1',
      '22.18.0',
      '22.19.0',
      '23.5.0',
      '23.6.0',
      '24.0.0',
      '26.1.0',
    ];
    expect(versions.filter(isSupported)).toEqual(['22.18.0', '22.19.0', '23.6.0', '24.0.0', '26.1.0']);
  });

  it('ends an older one with a line that says what to do', () => {
    const older = "Object.defineProperty(process, 'versions', { value: { node: '20.20.2' } })";
    const { status, stderr } = spawnSync(
      process.execPath,
      ['-e', `${older}; require(${JSON.stringify(CHECK)}); console.error('went on')`],
      { encoding: 'utf8' },
    );
    expect(status).toBe(1);
    expect(stderr).toMatch(/^ping-muc needs Node 22\.18 or newer, but .* is Node 20\.20\.2\. .*npm ci.*\n$/);
  });

  it('comes first in each command of an operator', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const commands = ['start', 'control', 'doctor', 'settings', 'configure', 'demo', 'test', 'package'];
    const { app } = JSON.parse(read('cdk.json')) as { app: string };
    const lines = [...commands.map((name) => scripts[name] ?? name), app];
    expect(lines.filter((line) => !line.startsWith('node -r ./scripts/node-version.cjs '))).toEqual([]);
    expect(read('release/ping-muc')).toMatch(
      /^#!\/usr\/bin\/env -S node .*\n'use strict';\n[^;]*require\('\.\/app\/node-version\.cjs'\);/,
    );
  });
});
