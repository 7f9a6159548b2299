import { expect, it } from 'vitest';
import { AnswerHistory } from '../../functions/adapters/answer-history.ts';
import type { Answer } from '../../functions/core/stanzas.ts';
import { stanzaId } from '../../functions/core/stanzas.ts';

it('the answers of as many joins as can wait to be written are kept, and no more', () => {
  const history = new AnswerHistory();
  const left: Answer = { kind: 'error', type: 'cancel', condition: 'not-acceptable' };
  const ask = (from: number, count: number): void => {
    const stanzas = Array.from({ length: count }, (_, index) => ({ id: stanzaId({ at: from + index }), xml: '' }));
    history.add(stanzas, new Map(stanzas.map(({ id }) => [id, left])));
  };
  for (let at = 0; at < 6000; at += 250) ask(at, 250);
  expect(history.of(0)).toEqual(['not-acceptable']);
  for (let at = 6000; at < 20_000; at += 250) ask(at, 250);
  expect(history.of(0)).toEqual([]);
  expect(history.of(19_999)).toEqual(['not-acceptable']);
});

it('the result of a re-entry is kept, and that of a user who is still in is not', () => {
  const history = new AnswerHistory();
  const error = (condition: string): Answer => ({ kind: 'error', type: 'cancel', condition });
  const answered = (at: number, answer?: Answer): void =>
    history.add([{ id: stanzaId({ at }), xml: '' }], new Map(answer === undefined ? [] : [[stanzaId({ at }), answer]]));
  for (const at of [1, 2, 3]) answered(at, error('not-acceptable'));
  for (const at of [1, 4]) answered(at, { kind: 'result' });
  answered(2, { kind: 'result', hasGap: true });
  answered(3, error('registration-required'));
  answered(3);
  expect([1, 2, 3, 4].map((at) => history.of(at))).toEqual([
    ['not-acceptable', 'result'],
    ['not-acceptable', 'result, with lines missing'],
    ['not-acceptable', 'registration-required', 'none'],
    [],
  ]);
});
