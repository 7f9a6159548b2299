import { expect, it } from 'vitest';
import { Scale } from '../../lab/scale.ts';
import { ScriptedMuc } from '../../lab/scripted-muc.ts';

/** With up to 50,000 joins: npm run bench. */
const JOINS = 2000;

it.each([
  ['all users are still in: nobody is notified', () => false, 0],
  ['all users are lost: each is notified exactly once', () => true, JOINS],
  ['every other user is lost: exactly those are notified', (index: number) => index % 2 === 0, JOINS / 2],
])(
  '2,000 joins, both streams cut; %s',
  async (_what, isLost, lost) => {
    const scale = await Scale.open({ joins: JOINS, rooms: 'scripted' });
    const { service } = scale;
    if (!(service instanceof ScriptedMuc)) throw new Error('this service does not count');
    try {
      await scale.enter();
      const { wrong, missed, double, notices, totals } = await scale.lose(isLost);
      expect({ wrong, missed, double, notices }).toEqual({ wrong: 0, missed: 0, double: 0, notices: lost });
      expect(service.count('ping')).toBe(JOINS);
      expect(totals).toMatchObject({ pinged: JOINS, joined: JOINS - lost, proved: 0, left: lost, notified: lost });
    } finally {
      await scale.close();
    }
  },
  180_000,
);
