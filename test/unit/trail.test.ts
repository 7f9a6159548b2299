import { expect, it } from 'vitest';
import { Trail } from '../../functions/adapters/trail.ts';
import type { Answer } from '../../functions/core/stanzas.ts';
import { stanzaId } from '../../functions/core/stanzas.ts';

it('what rooms answered is known for as many joins as can wait to be written, and in the end forgotten', () => {
  const trail = new Trail();
  const left: Answer = { kind: 'error', type: 'cancel', condition: 'not-acceptable' };
  const ask = (from: number, count: number): void => {
    const stanzas = Array.from({ length: count }, (_, index) => ({ id: stanzaId({ at: from + index }), xml: '' }));
    trail.keep(stanzas, new Map(stanzas.map(({ id }) => [id, left])));
  };
  for (let at = 0; at < 6000; at += 250) ask(at, 250);
  expect(trail.of(0)).toEqual(['not-acceptable']);
  for (let at = 6000; at < 20_000; at += 250) ask(at, 250);
  expect(trail.of(0)).toEqual([]);
  expect(trail.of(19_999)).toEqual(['not-acceptable']);
});

it('a room that lets a session in again is told apart from one that knew it all the time', () => {
  const trail = new Trail();
  const error = (condition: string): Answer => ({ kind: 'error', type: 'cancel', condition });
  const say = (at: number, answer?: Answer): void =>
    void trail.keep(
      [{ id: stanzaId({ at }), xml: '' }],
      new Map(answer === undefined ? [] : [[stanzaId({ at }), answer]]),
    );
  for (const at of [1, 2, 3]) say(at, error('not-acceptable'));
  for (const at of [1, 4]) say(at, { kind: 'result' });
  say(2, { kind: 'result', hasGap: true });
  say(3, error('registration-required'));
  say(3);
  expect([1, 2, 3, 4].map((at) => trail.of(at))).toEqual([
    ['not-acceptable', 'result'],
    ['not-acceptable', 'result, with lines missing'],
    ['not-acceptable', 'registration-required', 'none'],
    [],
  ]);
});
