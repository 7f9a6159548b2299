import { readFileSync } from 'node:fs';
import { manifest, productionPackages } from './packages.ts';

/**
 * Prints the software bill of materials of what is deployed, as CycloneDX 1.5: each production package with its licence
 * and the hash of its archive. The same lockfile gives the same output. (`npm sbom --omit=dev` would leave out packages
 * that development tools use, too.)
 */
const project = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  name: string;
  version: string;
  license: string;
};
const purl = (name: string, version: string): string => `pkg:npm/${name.replace('@', '%40')}@${version}`;

const components = productionPackages().map((locked) => {
  const { license = 'NOASSERTION', description } = manifest(locked);
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
const { name, version, license } = project;
const component = {
  type: 'application',
  'bom-ref': purl(name, version),
  name,
  version,
  licenses: [{ license: { id: license } }],
  purl: purl(name, version),
};
const bom = { bomFormat: 'CycloneDX', specVersion: '1.5', version: 1, metadata: { component }, components };
process.stdout.write(`${JSON.stringify(bom, null, 2)}\n`);
