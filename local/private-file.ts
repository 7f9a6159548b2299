import { rename, rm, writeFile } from 'node:fs/promises';

/** Writes a file for its owner alone. A reader sees the old text or the new one, and never a part. */
export async function writePrivateFile(file: string, text: string): Promise<void> {
  const unfinished = `${file}.new`;
  await rm(unfinished, { force: true }); // left by a crash: the mode of a file that exists would stay
  await writeFile(unfinished, text, { mode: 0o600, flag: 'wx' });
  await rename(unfinished, file);
}
