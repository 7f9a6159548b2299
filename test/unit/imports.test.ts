import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The sources below a folder, by their paths from the project's root. */
function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.tsx?$/.test(entry.name) && !entry.name.endsWith('.d.ts'))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));
}

/** A source without its comments, which may speak of anything. */
const code = (path: string): string =>
  readFileSync(join(root, path), 'utf8').replaceAll(/\/\*[^]*?\*\/|(?<=^|\s)\/\/.*/g, '');

/** What a source imports: our own files by path, packages by name. */
function imports(path: string): string[] {
  const named = [...code(path).matchAll(/(?:\bfrom|\bimport|\bimport\()\s*'([^']+)'/g)].map(
    ([, specifier = '']) => specifier,
  );
  return named.map((specifier) =>
    specifier.startsWith('.') ? relative(root, join(root, dirname(path), specifier)) : specifier,
  );
}

const strays = (folder: string, allowed: RegExp): string[] =>
  sources(folder).flatMap((path) =>
    imports(path)
      .filter((imported) => !allowed.test(imported))
      .map((imported) => `${path} imports ${imported}`),
  );

/** A package, which has no path of ours. */
const PACKAGE = '(?!(?:functions|infra|local|lab|scripts|test|bench|protocol)/)';

describe('imports point one way', () => {
  it('are found at all', () => {
    expect(imports('functions/adapters/server.ts')).toEqual(
      expect.arrayContaining(['node:http', 'functions/core/stanzas.ts', 'functions/adapters/secrets.ts']),
    );
    expect(sources('functions').length).toBeGreaterThan(10);
  });

  it('functions/core imports nothing of ours from outside, and of others only what parses and hashes', () => {
    expect(strays('functions/core', /^(?:functions\/core\/[a-z-]+\.ts|valibot|@xmpp\/xml|node:crypto)$/)).toEqual([]);
  });

  it('functions/core has no clock, no network, no environment and no chance', () => {
    const world =
      /\bDate\b|\bsetTimeout\b|\bsetInterval\b|\bsetImmediate\b|\bprocess\b|\bperformance\b|\bfetch\b|\bMath\.random\b|\brandom[A-Z]\w*\(|\bconsole\b/;
    expect(sources('functions/core').filter((path) => world.test(code(path)))).toEqual([]);
  });

  it('functions/adapters imports core, names and each other, and no handler', () => {
    expect(
      strays('functions/adapters', new RegExp(`^(?:functions/(?:core|adapters)/|functions/names\\.ts$|${PACKAGE})`)),
    ).toEqual([]);
  });

  it('functions imports nothing of what deploys, runs or tests it', () => {
    expect(strays('functions', new RegExp(`^(?:functions/(?:core/|adapters/|names\\.ts$)|${PACKAGE})`))).toEqual([]);
  });

  it('infra imports only names of functions', () => {
    expect(strays('infra', new RegExp(`^(?:infra/|functions/names\\.ts$|${PACKAGE})`))).toEqual([]);
  });

  it('local imports functions and infra, which import nothing of local', () => {
    expect(strays('local', new RegExp(`^(?:local/|functions/|infra/|${PACKAGE})`))).toEqual([]);
  });

  it('the console’s pages import each other, the views, and what runs in a browser', () => {
    const web = sources('local/console/web');
    expect(web.length).toBeGreaterThan(10);
    const allowed =
      /^(?:local\/console\/(?:web\/|views\.ts$)|local\/cloudwatch\/views\.ts$|(?:preact|echarts)(?:\/|$)|marked$)/;
    expect(strays('local/console/web', allowed)).toEqual([]);
    const others = ['functions', 'infra', 'local'].flatMap(sources).filter((path) => !web.includes(path));
    expect(others.flatMap(imports).filter((imported) => /^(?:preact|marked|echarts)/.test(imported))).toEqual([]);
  });

  it('the product imports nothing of what shows, tests or measures it', () => {
    const all = ['functions', 'infra', 'local'].flatMap((folder) => sources(folder).flatMap(imports));
    expect(all.filter((imported) => /^(?:lab|scripts|test|bench)\//.test(imported))).toEqual([]);
  });

  it('the lab imports the product alone; nothing imports tests', () => {
    expect(
      strays('lab', new RegExp(`^(?:lab/|functions/|infra/|local/|scripts/(?:debian|packages)\\.ts$|${PACKAGE})`)),
    ).toEqual([]);
    const all = ['lab', 'scripts', 'bench'].flatMap((folder) => sources(folder).flatMap(imports));
    expect(all.filter((imported) => imported.startsWith('test/'))).toEqual([]);
  });
});
