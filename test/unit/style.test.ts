import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

/** What CONTRIBUTING.md asks of every source, and a machine can see. Formatting is Prettier's and luacheck's. */
const root = fileURLToPath(new URL('../..', import.meta.url));
const sources = execFileSync('git', ['ls-files', '*.ts', '*.tsx', '*.css', '*.js', '*.lua', '*.erl', '*.py'], {
  cwd: root,
  encoding: 'utf8',
})
  .trim()
  .split('\n');
const linesOf = (path: string): readonly string[] => readFileSync(`${root}/${path}`, 'utf8').trimEnd().split('\n');

/** A string or a regular expression that does not fit into a line by itself. */
const LITERAL = /(['"`/]).{80,}\1/;

it('lines end at 120 columns, except for those with a long literal', () => {
  const isWide = (line: string): boolean => line.length > 120 && !LITERAL.test(line);
  const wide = sources.flatMap((path) =>
    linesOf(path).flatMap((line, index) => (isWide(line) ? [`${path}:${index + 1}`] : [])),
  );
  expect(wide).toEqual([]);
});

it('a file of the product has at most 300 lines', () => {
  const product = sources.filter((path) => /^(?:functions|infra|local|prosody|ejabberd)\//.test(path));
  expect(product.length).toBeGreaterThan(30);
  expect(product.filter((path) => linesOf(path).length > 300)).toEqual([]);
});

it('each field of the state that outlives a reload of the module belongs to one of its files', () => {
  const owners = sources
    .filter((path) => path.startsWith('prosody/'))
    .flatMap((path) => {
      const fields = linesOf(path).flatMap((line) => [...line.matchAll(/\bstate\.(\w+) = state\.\1 or\b/g)]);
      return fields.map(([, field = '']) => field);
    });
  expect(owners.length).toBeGreaterThan(15);
  expect(owners.filter((field, index) => owners.indexOf(field) !== index)).toEqual([]);
});

/** Words of our own, for things that have a name in the field. */
const PRIVATE = /\b(?:anew|whoever|whomever|manieth|theatre|comfort|crowd|trail)\b/i;

it('sources and pages use the words of the field', () => {
  const pages = execFileSync('git', ['ls-files', '*.md', '*.yaml', '*.yml'], { cwd: root, encoding: 'utf8' })
    .trim()
    .split('\n');
  const found = [...sources, ...pages]
    .filter((path) => path !== 'test/unit/style.test.ts' && !path.startsWith('bench/results/'))
    .flatMap((path) =>
      linesOf(path).flatMap((line, index) => (PRIVATE.test(line) ? [`${path}:${index + 1} ${line.trim()}`] : [])),
    );
  expect(found).toEqual([]);
});
