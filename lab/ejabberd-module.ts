import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { MODULES } from '../local/installation.ts';
import { compile } from './erlang.ts';
import type { Lab } from './lab.ts';

const SOURCES = join(MODULES.ejabberd, 'mod_ping_muc_webhook/src');

/** The folder with the compiled module: a run of the tests compiles it once (lab/assembly.ts). */
export async function compiledModule(lab: Lab): Promise<string> {
  const { PING_MUC_BEAMS: compiled } = process.env;
  return compiled ?? compileModule(join(lab.directory, 'beams'));
}

/** Compiles the module for ejabberd into a folder, and returns its path. @throws with the compiler's messages */
export async function compileModule(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  const sources = (await readdir(SOURCES)).filter((name) => name.endsWith('.erl'));
  await compile(
    sources.map((name) => join(SOURCES, name)),
    folder,
  );
  return folder;
}
