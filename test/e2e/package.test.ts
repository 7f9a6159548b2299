import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import { buildRelease } from '../../scripts/release/build.ts';

/** The release for one machine, unpacked into an empty folder, in an environment that has Node and nothing else. */
const run = promisify(execFile);
const MAX_UNPACKED_BYTES = 25e6;
/** Long enough for a stop while a check waits. */
const DELAY_SECONDS = 4;
let folder: string;
let archive: string;
/** The unpacked release. */
let release: string;
let environment: NodeJS.ProcessEnv;
let testBed: TwoServers;
/** What its demo prints. */
let demo: Promise<string>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ping-muc-package-'));
  const [home, unpacked] = [join(folder, 'home'), join(folder, 'unpacked')];
  await Promise.all([home, unpacked].map((name) => mkdir(name)));
  archive = await buildRelease(join(folder, 'dist'), process.env['PING_MUC_ASSEMBLY']);
  await run('tar', ['-xzf', archive, '-C', unpacked]);
  release = join(unpacked, basename(archive, '.tgz'));
  environment = { PATH: `${dirname(process.execPath)}:/usr/bin:/bin`, HOME: home };
  // it ends with an error if a user was late, as on a busy machine
  demo = command('demo')
    .catch((error: unknown) => error as { stdout: string })
    .then(({ stdout }) => stdout);
  testBed = await TwoServers.open(
    { ping_muc_delay: DELAY_SECONDS },
    { release: join(release, 'ping-muc'), environment },
  );
});
afterAll(async () => {
  await testBed.close();
  await demo;
  await rm(folder, { recursive: true });
});

const command = (...words: readonly string[]): Promise<{ stdout: string; stderr: string }> =>
  run(join(release, 'ping-muc'), words, { cwd: folder, env: environment, timeout: 60_000 });

it('a user who is lost is notified; a check that waits continues after a restart; the secret is in no output', async () => {
  const { runtime } = testBed;
  const room = testBed.room('balcony');
  const [juliet, romeo] = [await testBed.user('juliet'), await testBed.user('romeo')];
  await testBed.join(juliet, room, 'Juliet');
  await testBed.join(romeo, room, 'Romeo');

  await testBed.dropOccupant(room, juliet);
  const cut = testBed.dropStreams();
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 2, joined: 1, left: 1, notified: 1 });
  await until('Juliet is notified', () => juliet.notices()[0]);
  expect(romeo.notices()).toEqual([]);

  await testBed.dropOccupant(room, romeo);
  const started = (): number => runtime.lines.filter((line) => Number(line['ChecksStarted']) > 0).length;
  const before = started();
  testBed.dropStreams();
  await until('the check waits', () => started() > before);
  expect(await runtime.end('SIGTERM')).toBe(0);
  expect(romeo.notices()).toEqual([]);
  await runtime.start();
  await until('Romeo is notified', () => romeo.notices()[0]);
  expect([juliet.notices().length, romeo.notices().length]).toEqual([1, 1]);

  const output = `${runtime.output}${await readFile(`${runtime.data}.log`, 'utf8')}`;
  expect(output).toMatch(/^Next: add the lines of \S+prosody-settings\.lua .*: ping-muc settings --data /);
  expect(output).not.toContain(runtime.secret.replace('whsec_', ''));
  expect(runtime.secret).toMatch(/^whsec_.{40,}$/);
});

it('its commands show the settings, which only their owner can read, and the checks', async () => {
  const { data } = testBed.runtime;
  expect((await command('settings', '--data', data)).stdout).toBe(testBed.runtime.settingsFor('prosody'));
  expect(testBed.runtime.settingsFor('prosody')).toContain(`plugin_paths = { "${join(release, 'prosody')}" }`);
  const { stdout: ofEjabberd } = await command('settings', '--data', data, '--for', 'ejabberd');
  expect(ofEjabberd).toContain(`# Copy ${join(release, 'ejabberd/mod_ping_muc_webhook')} into`);
  for (const file of ['prosody-settings.lua', 'ejabberd-settings.yml'])
    expect((await stat(join(data, file))).mode & 0o777).toBe(0o600);

  await command('control', 'pause', '--data', data);
  const { stdout: status } = await command('control', 'status', '--data', data);
  expect(status).toContain('until ping-muc control resume');
  expect(status).toContain('No check is held.');
  await command('control', 'resume', '--data', data);

  const { version } = JSON.parse(await readFile(join(release, 'package.json'), 'utf8')) as { version: string };
  expect((await command('--version')).stdout).toBe(`${version}\n`);
  expect((await command('start', '--help')).stdout).toContain('Usage: ping-muc start [options]');
  await expect(command('stop')).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('no command stop') as string,
  });
  await expect(command('settings', '--data', folder)).rejects.toMatchObject({
    code: 1,
    stderr: `${folder} has no settings: start ping-muc on it, wait until it listens, or set --data\n`,
  });
});

it('has the demo', async () => {
  expect(await demo).toMatch(/Juliet +is in the room again/);
  expect(await demo).toMatch(/Nurse +is notified that she is out/);
}, 60_000);

it('serves the pages of the console, which it contains', async () => {
  await testBed.runtime.restart({ PING_MUC_CONSOLE: '0' });
  const page = async (name: string): Promise<Response> => fetch(`${testBed.runtime.consoleUrl}${name}`);
  const shell = await (await page('')).text();
  const parts = [...shell.matchAll(/(?:href|src)="\/([^"]*)"/g)].map(([, name = '']) => name);
  expect(parts.length).toBeGreaterThan(2);
  expect(await Promise.all(parts.map(async (name) => (await page(name)).status))).toEqual(parts.map(() => 200));
});

it('is an archive that says nothing of the machine that made it: files in order, one time, no owner', async () => {
  const list = ['--list', '--gzip', '--verbose', '--full-time', '--numeric-owner', '--file', archive];
  const { stdout } = await run('tar', list);
  const rows = stdout
    .trim()
    .split('\n')
    .map((row) => /^(\S{10}) (\S+) +\d+ (\S+ \S+) (.*)$/.exec(row) ?? []);
  expect(rows.length).toBeGreaterThan(50);
  expect(new Set(rows.map(([, , owner]) => owner))).toEqual(new Set(['0/0']));
  expect(new Set(rows.map(([, , , time]) => time)).size).toBe(1);
  expect(new Set(rows.map(([, mode]) => mode))).toEqual(new Set(['drwxr-xr-x', '-rw-r--r--', '-rwxr-xr-x']));
  const names = rows.map(([, , , , name = '']) => name.replace(/\/$/, '').replaceAll('/', '\0'));
  expect(names).toEqual(names.toSorted());
  await run('sha256sum', ['--check', `${archive}.sha256`], { cwd: dirname(archive) });
});

it('is small, and names what it contains of others, with all licences', async () => {
  const entries = await readdir(release, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size));
  expect(sizes.reduce((sum, size) => sum + size)).toBeLessThan(MAX_UNPACKED_BYTES);
  expect(await readdir(environment['HOME'] ?? '')).toEqual([]);

  const { components } = JSON.parse(await readFile(join(release, 'sbom.json'), 'utf8')) as {
    components: { name: string; version: string; licenses: { license: { id: string } }[] }[];
  };
  const names = components.map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining(['dynalite', 'classic-level', 'preact', 'valibot']));
  expect(names).not.toContain('esbuild');
  const texts = await readFile(join(release, 'THIRD-PARTY-LICENSES.txt'), 'utf8');
  const titles = components.map(
    ({ name, version, licenses: [first] }) => `\n${name} ${version} (${first?.license.id})\n`,
  );
  expect(titles.filter((title) => !texts.includes(title))).toEqual([]);
});

it('has a service whose sandbox leaves little', async () => {
  const service = join(release, 'ping-muc.service');
  const threshold = ['security', '--offline=true', '--threshold=20']; // 2.0
  const { stdout } = await run('systemd-analyze', [...threshold, service], { timeout: 30_000 });
  expect(stdout).toContain('Overall exposure level for ping-muc.service: 1.');
});
