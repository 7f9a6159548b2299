import { describe, expect, it } from 'vitest';
import { Collection, exponent, judge, median, quantile } from '../../bench/measure.ts';
import { slope } from '../../bench/pictures.ts';
import { markdown, unmeasured } from '../../bench/report.ts';

describe('a budget', () => {
  it.each([
    ['a time, by its median', 'from due to the last notice, 5,000 lost', [2.2, 2.4, 9], 2.4, true],
    ['a time that is too long', 'from due to the last notice, 5,000 lost', [2.9, 3.01, 3.6], 3.01, false],
    ['a rate, which is to be at least so much', 'pings through the stanza API', [3400, 3600, 3700], 3600, true],
    ['a rate that is too low', 'pings through the stanza API', [3400, 3499, 9000], 3499, false],
    ['a count, by its worst', 'wrong notices, 50,000 joins, both streams cut', [0, 0, 1], 1, false],
    ['a count that is kept', 'wrong notices, 50,000 joins, both streams cut', [0, 0], 0, true],
  ] as const)('is held against %s', (_what, budget, values, measured, isMet) => {
    expect(judge(budget, values)).toMatchObject({
      measured,
      isMet,
      least: Math.min(...values),
      most: Math.max(...values),
    });
  });

  it('that nothing was measured for is named', () => {
    expect(unmeasured([judge('notices for one loss', [1])])).toContain('pings through the stanza API');
    expect(unmeasured([judge('notices for one loss', [1])])).not.toContain('notices for one loss');
    expect(() => judge('notices for one loss', [])).toThrow();
    expect(() => new Collection().get('a check', 'seconds')).toThrow('not measured: a check, seconds');
  });
});

describe('numbers', () => {
  it('are summed up by quantiles', () => {
    expect([median([3, 1, 2]), median([1, 2, 3, 4]), quantile([10, 20, 30], 1), quantile([10, 20], 0.75)]).toEqual([
      2, 2.5, 30, 17.5,
    ]);
    expect(() => median([])).toThrow('nothing was measured');
  });

  it('grow with an exponent', () => {
    const grown = (power: number): [number, number][] => [1000, 5000, 20_000].map((x) => [x, 3 * x ** power]);
    expect(exponent(grown(1))).toBeCloseTo(1);
    expect(exponent(grown(2))).toBeCloseTo(2);
    expect([0, 0.5, 1, 2].map((power) => slope(grown(power)))).toEqual([
      'constant, slope 0.00',
      'less than linear, slope 0.50',
      'linear, slope 1.00',
      'more than linear, slope 2.00',
    ]);
    expect(
      slope([
        [10, 0],
        [100, 0],
      ]),
    ).toBe('costs nothing');
    expect(slope([[10, 1]])).toBe('one point');
  });
});

it('a report names the budget that is missed, and the run of each part', () => {
  const text = markdown({
    check: {
      day: '2026-11-30',
      minutes: 8.25,
      machine: { cores: 2 },
      budgets: { 'notices for one loss': [2] },
      samples: [{ what: '5,000 joins', quantity: 'seconds', unit: 's', values: [1, 2, 3] }],
      growth: [],
    },
  });
  expect(text).toMatch(/^\| notices for one loss \| ≤ 1 \| 2 \| 2\.00 \|  \| MISSED \|$/m);
  expect(text).toMatch(/^Measured on 2026-11-30 in 8\.25 minutes, on cores 2\.$/m);
  expect(text).toMatch(/^\| 5,000 joins \| 2 s \(1 – 3\) \|$/m);
});
