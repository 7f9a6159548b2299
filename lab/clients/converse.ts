import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { type Server, createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Lab, until } from '../lab.ts';
import { Page } from './browser.ts';
import type { Client, ClientOptions } from './client.ts';

const VERSION = '14.0.0';
const INTEGRITY = 'sha512-LFUg030jDalV47vI/vyVPqYPZfJYXFbubq8v0cFDe2zXNeeGEk3Up0Fj/WTzT6t+6do+cAIToy73eAj7RNDj2Q==';
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/ping-muc', import.meta.url));
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};
const START_MS = 60_000;

/**
 * Fetches Converse.js, once: its package has everything that a browser needs. It is not a dependency of the project,
 * because nothing else needs it, and with its dependencies it takes 100 MB.
 * @returns the folder that a browser loads
 */
function fetched(): string {
  const folder = join(CACHE, `converse.js-${VERSION}`);
  if (existsSync(folder)) return join(folder, 'package', 'dist');
  process.stderr.write(`converse.js ${VERSION} is fetched from npm\n`);
  mkdirSync(CACHE, { recursive: true });
  const part = mkdtempSync(join(CACHE, 'part-'));
  execFileSync('npm', ['pack', '--silent', `converse.js@${VERSION}`, '--pack-destination', part], {
    stdio: ['ignore', 'ignore', 'inherit'],
    timeout: 300_000,
  });
  const archive = join(part, `converse.js-${VERSION}.tgz`);
  const integrity = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`;
  if (integrity !== INTEGRITY) throw new Error(`converse.js ${VERSION} has another checksum: ${integrity}`);
  execFileSync('tar', ['-xzf', archive, '-C', part, 'package/dist']);
  rmSync(archive);
  renameSync(part, folder);
  return join(folder, 'package', 'dist');
}

/** A web server with Converse.js and a page that starts it. */
async function serve(lab: Lab, page: string): Promise<string> {
  const folder = fetched();
  const server: Server = createServer((request, response) => {
    const path = normalize(new URL(request.url ?? '/', 'http://lab').pathname);
    const body = path === '/' ? Promise.resolve(page) : readFile(join(folder, path));
    body.then(
      (content) =>
        response
          .writeHead(200, {
            'content-type': TYPES[path === '/' ? '.html' : extname(path)] ?? 'application/octet-stream',
          })
          .end(content),
      () => response.writeHead(404).end(),
    );
  });
  lab.keep({
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
  const address = lab.address(9);
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, address, resolve));
  return `http://${address}:${(server.address() as { port: number }).port}/`;
}

/** Converse.js, in Chromium. */
export async function converse({ lab, server, user, room, nick }: ClientOptions): Promise<Client> {
  const settings = {
    authentication: 'login',
    auto_login: true,
    jid: `${user}@${server.host}/converse`,
    password: server.password,
    websocket_url: server.websocketService,
    discover_connection_methods: false,
    view_mode: 'fullscreen',
    theme: 'default',
    auto_join_rooms: [{ jid: room, nick }],
    assets_path: '/',
    i18n: 'en',
    show_desktop_notifications: false,
    play_sounds: false,
    clear_cache_on_logout: true,
    persistent_store: 'localStorage',
  };
  const page = await Page.open(
    lab,
    await serve(
      lab,
      `<!DOCTYPE html><html><head><meta charset="utf-8"><link rel="stylesheet" href="/converse.min.css">
<script>window.errs=[];window.onerror=(m,s,l)=>errs.push(m+s+l);
window.onunhandledrejection=(e)=>errs.push(String(e.reason))</script></head>
<body class="converse-fullscreen"><script type="module">import converse from "/converse.min.js";
(converse ?? window.converse).initialize(${JSON.stringify(settings)})</script></body></html>`,
    ),
  );
  const texts = (selector: string): Promise<readonly string[]> =>
    page.run(
      `[...document.querySelectorAll(${JSON.stringify(selector)})]` +
        '.map((element) => element.innerText.trim()).filter(Boolean)',
    );
  await until(
    'Converse.js shows the room',
    () => page.run<boolean>("document.querySelector('converse-muc .chat-textarea') !== null"),
    START_MS,
  );
  return {
    name: `Converse.js ${VERSION}`,
    typeLine: async (line) => {
      await page.run("document.querySelector('converse-muc .chat-textarea').focus()");
      await page.type(line);
    },
    shown: async () => (await texts('converse-muc .chat-msg__text, converse-muc .chat-info')).join('\n'),
    occupants: () => texts('converse-muc .occupant-nick'),
    farewell: async () => (await texts('converse-muc-disconnected .disconnect-msg')).join(': ') || undefined,
    picture: (path) => page.picture(path),
  };
}
