import { readFileSync } from 'node:fs';

const read = (path: string): unknown => JSON.parse(readFileSync(new URL(`../${path}`, import.meta.url), 'utf8'));

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

/** The package.json of an installed package. */
export function manifest({ path }: Package): {
  readonly version: string;
  readonly license?: string;
  readonly description?: string;
} {
  return read(`${path}/package.json`) as ReturnType<typeof manifest>;
}
