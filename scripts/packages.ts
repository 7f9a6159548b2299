import { readFileSync } from 'node:fs';

const read = (path: string): unknown => JSON.parse(readFileSync(new URL(`../${path}`, import.meta.url), 'utf8'));

/** Licences that ask for no more than to be named. */
export const ALLOWED_LICENCES: ReadonlySet<string> = new Set([
  'MIT',
  'Apache-2.0',
  '0BSD',
  'ISC',
  'BSD-2-Clause',
  'BSD-3-Clause',
]);

/** An entry of package-lock.json. */
interface Locked {
  readonly version: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly dev?: true;
  readonly optional?: true;
  readonly devOptional?: true;
  /** It is part of another package's archive, whose integrity covers it. */
  readonly inBundle?: true;
  readonly hasInstallScript?: true;
}

export interface Package extends Locked {
  /** Its folder, relative to the project's root. */
  readonly path: string;
  readonly name: string;
}

/** Everything that `npm ci` installs. */
export function lockedPackages(): readonly Package[] {
  const { packages } = read('package-lock.json') as { packages: Record<string, Locked> };
  return Object.entries(packages)
    .filter(([path]) => path !== '')
    .map(([path, locked]) => ({ path, name: path.replace(/^.*node_modules\//, ''), ...locked }));
}

/** The packages from which the functions may be bundled: production dependencies, direct and indirect. */
export function productionPackages(): readonly Package[] {
  return lockedPackages().filter(({ dev, optional, devOptional }) => !(dev ?? optional ?? devOptional));
}

/** The packages to which some of these files belong, whose paths begin at the project's root. */
export function packagesOf(files: readonly string[]): readonly Package[] {
  const folder = /^node_modules\/(?:@[^/]+\/)?[^/]+(?:\/node_modules\/(?:@[^/]+\/)?[^/]+)*(?=\/)/;
  const folders = new Set(files.flatMap((file) => folder.exec(file)?.[0] ?? []));
  return lockedPackages().filter(({ path }) => folders.has(path));
}

/** What the package.json of an installed package says. */
export function manifest({ path }: Package): {
  readonly version: string;
  readonly license: string;
  readonly author: string | undefined;
  readonly description: string | undefined;
} {
  const { version, licenses, license = licenses?.[0], author, description } = read(`${path}/package.json`) as Manifest;
  return { version, license: textOf(license, 'type') ?? 'NOASSERTION', author: textOf(author, 'name'), description };
}

/** The oldest packages have a licence as an object, or a list of them. */
interface Manifest {
  readonly version: string;
  readonly license?: string | { readonly type?: string };
  readonly licenses?: readonly { readonly type?: string }[];
  readonly author?: string | { readonly name?: string };
  readonly description?: string;
}

const textOf = <Field extends string>(
  value: string | { readonly [field in Field]?: string } | undefined,
  field: Field,
): string | undefined => (typeof value === 'object' ? value[field] : value);
