import { BUDGETS, type Budget, type Growth, type Limit, type Sample, type Verdict, median } from './measure.ts';
import { slope } from './pictures.ts';

/** The results of a run, as stored in bench/results/. */
export interface Results {
  readonly machine: Readonly<Record<string, string | number | undefined>>;
  readonly minutes: number;
  readonly verdicts: readonly Verdict[];
  /** By the part of the benchmark. */
  readonly samples: Readonly<Record<string, readonly Sample[]>>;
  readonly growth: readonly Growth[];
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

/** The whole run as a page. */
export function markdown({ machine, minutes, verdicts, samples, growth }: Results): string {
  return `# Results

Written by \`npm run bench\` in ${rounded(minutes)} minutes on ${Object.entries(machine)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ')}. Do not edit. Explanation: [docs/performance.md](../../docs/performance.md).

In each cell: the median, and in brackets the least and the most of all repetitions.

${markdownTable('budget', budgetTable(verdicts))}

${Object.entries(samples)
  .map(([part, own]) => `## ${part}\n\n${markdownTable('', sampleTable(own))}`)
  .join('\n\n')}

## growth

${markdownTable('', growthTable(growth))}

${growth.map((one) => `![${one.title}](${fileOf(one)})`).join('\n\n')}
`;
}
