import {
  BUDGETS,
  type Budget,
  type Findings,
  type Growth,
  type Limit,
  type Sample,
  type Verdict,
  judge,
  median,
} from './measure.ts';
import { slope } from './pictures.ts';

/** The results of one part, as its last run found them. */
interface PartResults extends Findings {
  /** The day of the run, such as 2026-11-30. */
  readonly day: string;
  readonly minutes: number;
  readonly machine: Readonly<Record<string, string | number | undefined>>;
}

/** What is stored in bench/results/: the last run of each part. */
export type Results = Readonly<Record<string, PartResults>>;

/** The budgets that these results measured, with their values. */
export function verdictsOf(results: Results): readonly Verdict[] {
  const measured = Object.assign({}, ...Object.values(results).map(({ budgets }) => budgets)) as Findings['budgets'];
  return (Object.keys(BUDGETS) as Budget[]).flatMap((budget) => {
    const values = measured[budget];
    return values === undefined || values.length === 0 ? [] : [judge(budget, values)];
  });
}

type Table = Record<string, Record<string, string>>;

const rounded = (value: number): string =>
  (Number.isInteger(value) ? value : Number(value.toPrecision(3))).toLocaleString('en', { maximumFractionDigits: 4 });
function spread(least: number, most: number): string {
  return least === most ? '' : `${rounded(least)} – ${rounded(most)}`;
}

const bound = ({ most, least = 0 }: Limit): string =>
  most !== undefined ? `≤ ${rounded(most)}` : `≥ ${rounded(least)}`;

/** Each budget with its measurement, without the budgets that were not measured. */
export function budgetTable(verdicts: readonly Verdict[]): Table {
  const row = ({ limit, measured, ratio, least, most, isMet }: Verdict): Record<string, string> => ({
    limit: `${bound(limit)} ${limit.unit}`.trim(),
    measured: `${rounded(measured)} ${limit.unit}`.trim(),
    ratio: ratio?.toFixed(2) ?? '',
    spread: spread(least, most),
    verdict: isMet ? 'met' : 'MISSED',
  });
  return Object.fromEntries(verdicts.map((verdict) => [verdict.budget, row(verdict)]));
}

/** The budgets that were not measured. */
export function unmeasured(verdicts: readonly Verdict[]): readonly Budget[] {
  return (Object.keys(BUDGETS) as Budget[]).filter((budget) => verdicts.every((verdict) => verdict.budget !== budget));
}

/** A part's table: a row for each thing, a column for each quantity, in each cell the median and the spread. */
export function sampleTable(samples: readonly Sample[]): Table {
  const rows: Table = {};
  for (const { what, quantity, unit, values } of samples) {
    const range = spread(Math.min(...values), Math.max(...values));
    rows[what] = {
      ...rows[what],
      [quantity]: `${rounded(median(values))} ${unit}`.trim() + (range === '' ? '' : ` (${range})`),
    };
  }
  return rows;
}

/** How each quantity grows with size. */
export function growthTable(growth: readonly Growth[]): Table {
  return Object.fromEntries(
    growth.flatMap(({ title, lines }) =>
      lines.map(({ name, points }) => [`${title}: ${name}`, { slope: slope(points) }]),
    ),
  );
}

/** The picture's file in bench/results/. */
export const fileOf = ({ title }: Growth): string => `${title.toLowerCase().replace(/[^a-z]+/g, '-')}.svg`;

function markdownTable(head: string, table: Table): string {
  const columns = [...new Set(Object.values(table).flatMap(Object.keys))];
  const rows = Object.entries(table).map(([name, cells]) => [name, ...columns.map((column) => cells[column] ?? '')]);
  return [[head, ...columns], ['---', ...columns.map(() => '---:')], ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
}

/** All results as a page. */
export function markdown(results: Results): string {
  const growth = Object.values(results).flatMap((part) => part.growth);
  return `# Results

Written by \`npm run bench\`. Do not edit. Explanation: [docs/performance.md](../../docs/performance.md).

In each cell: the median, and in brackets the least and the most of all repetitions.

${markdownTable('budget', budgetTable(verdictsOf(results)))}

${Object.entries(results)
  .map(([part, own]) => `## ${part}\n\n${origin(own)}\n\n${markdownTable('', sampleTable(own.samples))}`)
  .join('\n\n')}

## growth

${markdownTable('', growthTable(growth))}

${growth.map((one) => `![${one.title}](${fileOf(one)})`).join('\n\n')}
`;
}

function origin({ day, minutes, machine }: PartResults): string {
  const parts = Object.entries(machine).map(([name, value]) => `${name} ${value}`);
  return `Measured on ${day} in ${rounded(minutes)} minutes, on ${parts.join(', ')}.`;
}
