import { expect, it } from 'vitest';
import { playScale } from '../lab/scale.ts';

/** The same at 5,000 and 50,000: npm run bench:scale. */
const JOINS = 2000;

it.each([
  ['everyone is still joined: nobody is told', () => false, 0],
  ['everyone is lost: each is told exactly once', () => true, JOINS],
  ['every other one is lost: exactly those are told', (index: number) => index % 2 === 0, JOINS / 2],
])(
  '2,000 joins, both streams cut; %s',
  async (_what, isLost, lost) => {
    const { wrong, missed, double, notices, pings, totals } = await playScale(JOINS, isLost);
    expect({ wrong, missed, double, notices }).toEqual({ wrong: 0, missed: 0, double: 0, notices: lost });
    expect(pings).toBe(JOINS);
    expect(totals).toMatchObject({ pinged: JOINS, joined: JOINS - lost, left: lost, notified: lost });
  },
  180_000,
);
