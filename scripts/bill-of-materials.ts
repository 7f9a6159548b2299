import { readFileSync } from 'node:fs';
import { type Package, manifest } from './packages.ts';

const purl = (name: string, version: string): string => `pkg:npm/${name.replace('@', '%40')}@${version}`;

/**
 * The software bill of materials of something that contains these packages, as CycloneDX 1.5: each package with its
 * licence and the hash of its archive. The same lockfile gives the same text. (`npm sbom --omit=dev` would leave out
 * packages that development tools use, too.)
 */
export function billOfMaterials(packages: readonly Package[]): string {
  const components = packages.map((locked) => {
    const { license, description } = manifest(locked);
    const [algorithm = '', digest = ''] = (locked.integrity ?? '').split('-');
    return {
      type: 'library',
      'bom-ref': purl(locked.name, locked.version),
      name: locked.name,
      version: locked.version,
      ...(description === undefined ? {} : { description }),
      hashes: [{ alg: algorithm.replace('sha', 'SHA-'), content: Buffer.from(digest, 'base64').toString('hex') }],
      licenses: [{ license: { id: license } }],
      purl: purl(locked.name, locked.version),
    };
  });
  const { name, version, license } = JSON.parse(
    readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
  ) as Readonly<Record<'name' | 'version' | 'license', string>>;
  const component = {
    type: 'application',
    'bom-ref': purl(name, version),
    name,
    version,
    licenses: [{ license: { id: license } }],
    purl: purl(name, version),
  };
  const bom = { bomFormat: 'CycloneDX', specVersion: '1.5', version: 1, metadata: { component }, components };
  return `${JSON.stringify(bom, null, 2)}\n`;
}
