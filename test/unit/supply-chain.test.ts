import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { execFileSync } from 'node:child_process';
import { build } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { ALLOWED_LICENCES, lockedPackages, manifest, productionPackages } from '../../scripts/packages.ts';
import { licenceTexts } from '../../scripts/release/licences.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const project = JSON.parse(read('package.json')) as Record<
  'dependencies' | 'devDependencies' | 'optionalDependencies',
  Record<string, string>
>;

const REGISTRY = 'https://registry.npmjs.org/';

describe('what is installed', () => {
  it('is asked for by exact versions', () => {
    const asked = Object.entries({
      ...project.dependencies,
      ...project.devDependencies,
      ...project.optionalDependencies,
    });
    expect(asked.length).toBeGreaterThan(20);
    expect(asked.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
  });

  it('comes from the registry alone, and is what the lockfile says to the bit', () => {
    const archives = lockedPackages().filter(({ inBundle }) => inBundle === undefined);
    expect(archives.length).toBeGreaterThan(200);
    // without its own address it comes from npm's registry; any other address, such as a repository's, is refused
    const strays = archives.filter(
      ({ resolved = REGISTRY, integrity }) => !resolved.startsWith(REGISTRY) || !integrity?.startsWith('sha512-'),
    );
    expect(strays.map(({ path }) => path)).toEqual([]);
  });

  it('runs no script of its own, and production packages have none', () => {
    expect(read('.npmrc').split('\n')).toEqual(expect.arrayContaining(['ignore-scripts=true', 'save-exact=true']));
    expect(
      productionPackages()
        .filter(({ hasInstallScript }) => hasInstallScript)
        .map(({ path }) => path),
    ).toEqual([]);
  });
});

describe('what is deployed', () => {
  it('has licences that ask for no more than to be named', () => {
    const packages = productionPackages();
    expect(packages.length).toBeGreaterThan(20);
    const licences = packages.map((locked) => ({ path: locked.path, locked: locked.version, ...manifest(locked) }));
    expect(
      licences
        .filter(({ license }) => !ALLOWED_LICENCES.has(license))
        .map(({ path, license }) => `${path}: ${license}`),
    ).toEqual([]);
    expect(licences.filter(({ locked, version }) => locked !== version).map(({ path }) => path)).toEqual([]);
  });

  it('holds only production packages, and SECURITY.md gives a reason for each that we asked for', async () => {
    const { metafile } = await build({
      absWorkingDir: root,
      entryPoints: ['functions/webhook.ts', 'functions/check.ts'],
      outdir: 'nowhere',
      write: false,
      metafile: true,
      bundle: true,
      platform: 'node',
      format: 'esm',
      mainFields: ['module', 'main'],
      logLevel: 'silent',
    });
    const bundled = new Set(
      Object.keys(metafile.inputs).flatMap(
        (path) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? [],
      ),
    );
    const production = productionPackages();
    const paths = new Set(production.map(({ path }) => path));
    expect([...bundled].filter((path) => !paths.has(path))).toEqual([]);

    const asked = Object.keys(project.dependencies);
    expect(asked.filter((name) => !bundled.has(`node_modules/${name}`))).toEqual([]); // none that nothing needs
    const listed = [...read('SECURITY.md').matchAll(/^\| `([^`]+)` \| .{20,} \|$/gm)].map(([, name]) => name);
    expect(listed.sort()).toEqual(asked.sort());
  });

  it('has a bill of materials: each package with its version, its licence and the hash of its archive', () => {
    const bill = JSON.parse(execFileSync(process.execPath, ['scripts/sbom.ts'], { cwd: root, encoding: 'utf8' })) as {
      bomFormat: string;
      components: {
        purl: string;
        hashes: { alg: string; content: string }[];
        licenses: { license: { id: string } }[];
      }[];
    };
    expect(bill.bomFormat).toBe('CycloneDX');
    expect(bill.components).toHaveLength(productionPackages().length);
    for (const { purl, hashes, licenses } of bill.components) {
      expect(purl).toMatch(/^pkg:npm\/(?:%40[^/@]+\/)?[^/@]+@\d+\.\d+\.\d+$/);
      expect(hashes).toEqual([{ alg: 'SHA-512', content: expect.stringMatching(/^[0-9a-f]{128}$/) as string }]);
      expect(ALLOWED_LICENCES).toContain(licenses[0]?.license.id);
    }
  });
});

describe('what a release contains of others', () => {
  const named = (name: string) => lockedPackages().filter((locked) => locked.name === name);

  it('has its licence texts, with those of the work that a package contains, each once', () => {
    const texts = licenceTexts([
      ...named('classic-level'),
      ...named('@aws-sdk/client-sfn'),
      ...named('@aws-sdk/client-dynamodb'),
    ]);
    expect(texts).toMatch(/^classic-level \d+\.\d+\.\d+ \(MIT\)$/m);
    expect(texts).toContain('The LevelDB Authors');
    expect(texts.match(/Apache License\n/g)).toHaveLength(1);
  });

  it('is nothing whose licence asks for more than to be named', () => {
    expect(() => licenceTexts(named('axe-core'))).toThrow('axe-core has the licence MPL-2.0, which is not allowed');
  });
});
