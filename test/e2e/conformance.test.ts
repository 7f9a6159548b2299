import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Lab } from '../../lab/lab.ts';
import type { Settings } from '../../lab/printed-settings.ts';
import { Runtime } from '../../lab/runtime.ts';
import { ROLES, startAway, startHome } from '../../lab/servers.ts';
import type { XmppServer } from '../../lab/xmpp-server.ts';

/** `npm run conformance`: our own servers meet every requirement of the contract, and it finds what does not. */
const SCRIPT = fileURLToPath(new URL('../../scripts/conformance.ts', import.meta.url));
const PORT = 8799;
let lab: Lab;
let runtime: Runtime;
let home: XmppServer;
let room: string;

const settings = (changes: Settings = {}): Settings => ({
  ping_muc_webhook_url: `http://${lab.address(1)}:${PORT}/webhooks`,
  ping_muc_heartbeat: 60,
  http_host: lab.address(2),
  ...changes,
});

beforeAll(async () => {
  lab = await Lab.open();
  runtime = await Runtime.start(lab);
  const module = { runtime, changes: settings({ ping_muc_reenter: true }) };
  home = await startHome(lab, { host: lab.address(2), users: ['juliet'], module });
  const muc = lab.address(4);
  await startAway(lab, { host: lab.address(3), mucs: [muc] });
  room = `conformance@${muc}`;
});
afterAll(() => lab.close());

/** Runs the command. Returns its status, and the lines that it printed. */
function conformance(words: readonly string[]): Promise<{ status: number | null; lines: readonly string[] }> {
  const args = [
    SCRIPT,
    ...['--server-api', `http://${home.host}:5280/ping_muc`, '--user', `juliet@${home.host}`, '--room', room],
    ...['--service', home.service, '--webhooks', `http://${lab.address(1)}:${PORT}/webhooks`, ...words],
  ];
  const secrets = { PING_MUC_SECRET: runtime.secret, PING_MUC_PASSWORD: home.password };
  const options = { timeout: 120_000, env: { ...process.env, ...secrets, NO_COLOR: '1' } };
  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, options, (_error, stdout, stderr) =>
      resolve({ status: child.exitCode, lines: `${stdout}${stderr}`.split('\n') }),
    );
  });
}

it(`${ROLES.users} meets every requirement`, async () => {
  const { status, lines } = await conformance(['--close', home.closeCommand(home.host, room.split('@')[1] ?? '')]);
  expect(lines.filter((line) => !line.startsWith('✓') && line !== '')).toEqual([
    expect.stringMatching(/^\d+ requirements are met, 0 are not, 0 were not checked\.$/),
  ]);
  expect(status).toBe(0);
}, 120_000);

it('a server that breaks the contract is found out, by the paragraph', async () => {
  // a join of another moment than the server's own: what the server sends is not signed with this secret
  await home.set({ ping_muc_secret: `whsec_${Buffer.alloc(32, 3).toString('base64')}`, ping_muc_reenter: false });
  const { status, lines } = await conformance([]);
  expect(lines).toContain('✗ Signatures: a signed request without stanzas: 200');
  expect(lines).toContain('✗ Signatures: every webhook is signed, with the current time');
  expect(lines).toContain(
    '– What a server does, 4: the end of the connection sends s2s.closed for the room’s host ' +
      '(not checked: set --close to a command that ends the connection)',
  );
  expect(status).toBe(1);
  await home.set();
}, 120_000);
