import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { synthesize } from './assembly.ts';
import { readPages } from './console/pages.ts';

/**
 * Where the parts of ping-muc are. The development tree makes them when it starts. A release, whose code is bundled
 * into `app/`, contains them (scripts/release/build.ts).
 */
const extension = extname(import.meta.url);
const isRelease = extension !== '.ts';
const root = fileURLToPath(new URL('..', import.meta.url));

/** The folders that contain the module, for each server. */
export const MODULES = { prosody: join(root, 'prosody'), ejabberd: join(root, 'ejabberd') } as const;

/** The command of this release. Undefined: this is the development tree. */
export const RELEASE_COMMAND = isRelease ? join(root, 'ping-muc') : undefined;

/** Runs in a function's thread. */
export const FUNCTION_WORKER = new URL(`function-worker${extension}`, import.meta.url);

/** How a command is called here: `npm start`, `npm run control -- status` or `ping-muc control status`. */
export function commandLine(name: string, words = ''): string {
  if (isRelease) return `ping-muc ${name} ${words}`.trim();
  return `npm ${name === 'start' ? '' : 'run '}${name}${words === '' ? '' : ` -- ${words}`}`;
}

/**
 * The folder with the output of `cdk synth`.
 *
 * @param data the data directory
 * @param serverApi the XMPP server's stanza API
 * @throws with the CDK's own message
 */
export async function stackAssembly(data: string, serverApi: string): Promise<string> {
  if (isRelease) return join(root, 'cdk.out');
  const directory = join(data, 'cdk.out');
  // the stack accepts plain http for loopback only; with {host}, the server is on this machine, too
  await synthesize(directory, { serverApiUrl: serverApi.replace('http://{host}', 'http://localhost') });
  return directory;
}

/** The console's pages by file name. */
export async function consolePages(): Promise<ReadonlyMap<string, Uint8Array>> {
  if (isRelease) return readPages(join(root, 'app/pages'));
  const { bundle } = await import('./console/bundle.ts'); // not in a release, which has no bundler
  return (await bundle()).files;
}
