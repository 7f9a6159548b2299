import { existsSync, globSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { DIFFERENCES_TABLE, differencesTable } from '../../lab/differences.ts';
import { FAULTS } from '../../lab/faults.ts';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

it('docs/reliability.md names a test for each fault, and each of them is there', () => {
  const tables = [...read('docs/reliability.md').matchAll(/^\| fault \|.*\n\|[-| ]+\n((?:\|.*\n)+)/gm)].flatMap(
    ([, rows = '']) => rows.trimEnd().split('\n'),
  );
  const tests = tables.flatMap((row) =>
    (row.split('|').at(-2) ?? '').split(';').map((name) => name.trim().replaceAll('`', '')),
  );
  const isThere = (name: string): boolean =>
    name.endsWith('.ts') ? existsSync(new URL(`../../${name}`, import.meta.url)) : name in FAULTS;
  expect(tests.length).toBeGreaterThan(20);
  expect(tests.filter((name) => !isThere(name))).toEqual([]);
  expect(Object.keys(FAULTS).filter((fault) => !tests.some((name) => fault.startsWith(name)))).toEqual([]);
});

it('docs/servers.md lists the tests that are left out (npm run test:servers -- --differences writes them)', () => {
  expect(DIFFERENCES_TABLE.exec(read('docs/servers.md'))?.[0].trimEnd()).toBe(differencesTable());
});

describe('the rules', () => {
  const files = globSync(
    '{functions,infra,local,test,bench,scripts,lab,prosody,ejabberd,docs,protocol,*.md}{,/**/*.{ts,lua,erl,md,yaml}}',
    {
      cwd: new URL('../..', import.meta.url).pathname,
    },
  ).filter(
    (path) => /\.(ts|lua|erl|md|yaml)$/.test(path) && !path.endsWith('documents.test.ts') && path !== 'docs/rules.md',
  );
  const headings = new Set(
    [...read('docs/rules.md').matchAll(/^## Rule (\d+)$/gm)].map(([, number]) => Number(number)),
  );
  /** The numbers that a text cites: rule 5, rules 6 and 7, rules 6 to 9. */
  const cited = (text: string): number[] =>
    [...text.matchAll(/\brules? (\d+)(?:(?:,? and | to |–)(\d+))?/gi)].flatMap(([, from, to = from]) => [
      Number(from),
      Number(to),
    ]);

  it('are numbered from 1 without a gap', () => {
    expect([...headings]).toEqual(Array.from(headings, (_, index) => index + 1));
    expect(headings.size).toBeGreaterThanOrEqual(9);
  });

  it('that code, tests and documents cite are there, and where to read them is said', () => {
    const citing = files.filter((path) => cited(read(path)).length > 0);
    expect(citing.length).toBeGreaterThan(8);
    expect(
      citing.flatMap((path) =>
        cited(read(path))
          .filter((rule) => !headings.has(rule))
          .map((rule) => `${path}: rule ${rule}`),
      ),
    ).toEqual([]);
    expect(citing.filter((path) => !/rules\.md/.test(read(path)))).toEqual([]);
  });

  it('are each cited where the product implements them', () => {
    const product = files.filter((path) => /^(?:functions|infra|local|prosody)\/.*\.(?:ts|lua)$/.test(path));
    const found = new Set(product.flatMap((path) => cited(read(path))));
    expect([...headings].filter((rule) => !found.has(rule))).toEqual([]);
  });

  it('are linked from Markdown by headings that are there', () => {
    const anchors = new Set(
      [...read('docs/rules.md').matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
        heading.toLowerCase().replaceAll(' ', '-'),
      ),
    );
    const links = files
      .filter((path) => path.endsWith('.md'))
      .flatMap((path) => [...read(path).matchAll(/rules\.md#([\w-]+)/g)].map(([, anchor = '']) => anchor));
    expect(links.filter((anchor) => !anchors.has(anchor))).toEqual([]);
  });
});
