import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ALLOWED_LICENCES, type Package, manifest } from '../packages.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const LINE = '='.repeat(80);

/** The licence texts of packages, each text once. @throws if a licence asks for more than to be named */
export function licenceTexts(packages: readonly Package[]): string {
  const byText = new Map<string, string[]>();
  for (const locked of packages) {
    const { license } = manifest(locked);
    if (!ALLOWED_LICENCES.has(license))
      throw new Error(`${locked.name} has the licence ${license}, which is not allowed (scripts/packages.ts)`);
    for (const text of textsOf(locked)) byText.set(text, [...(byText.get(text) ?? []), title(locked)]);
  }
  return [...byText].map(([text, titles]) => `${LINE}\n${titles.join('\n')}\n${LINE}\n\n${text}\n`).join('\n');
}

function title(locked: Package): string {
  return `${locked.name} ${locked.version} (${manifest(locked).license})`;
}

/** A package can contain the work of others, with their own texts: LevelDB in classic-level, for example. */
function textsOf(locked: Package): readonly string[] {
  const files = globSync('**/{LICENSE,LICENCE,COPYING,NOTICE,license,licence}{,-*,.*}', {
    cwd: `${ROOT}${locked.path}`,
    exclude: (name) => name === 'node_modules',
  });
  const texts = files.sort().map((file) => readFileSync(`${ROOT}${locked.path}/${file}`, 'utf8').trim());
  if (texts.length > 0) return texts;
  const { license, author } = manifest(locked);
  const by = author === undefined ? '' : `, by ${author}`;
  return [`The package has no text. Its package.json says: ${license}${by}. Other packages here have that text.`];
}
