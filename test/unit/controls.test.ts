import { GetItemCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Controls } from '../../functions/adapters/controls.ts';
import { type CheckState, firstState } from '../../functions/core/check-state.ts';
import { type TestTable, startTable } from './dynamodb.ts';

/** Rules 13 and 14 (docs/rules.md): the rows through which an operator controls checks. */

const NOW = 1_795_355_000;
const WEEK = 7 * 86_400;

let embedded: TestTable;
let controls: Controls;
let checks = 0;
beforeAll(async () => {
  embedded = await startTable();
  controls = new Controls(embedded.client, embedded.name);
});
afterAll(() => embedded.close());
beforeEach(() => controls.resume());

function held(): CheckState {
  const close = {
    host: 'example.net',
    remote: 'muc.host',
    at: NOW * 1e6,
    delay: 60,
    timeout: 60,
    patience: 0,
    dryRun: false,
    reenter: false,
    cause: 'close' as const,
  };
  const state = firstState(close, `check-${(checks += 1)}`, 60, NOW);
  return { ...state, held: true, stoppedAt: NOW + 0.5, totals: { ...state.totals, joined: 5, left: 3, undecided: 2 } };
}

describe('a pause', () => {
  it('is in force until it is ended', async () => {
    expect(await controls.readPause(NOW)).toBeUndefined();
    await controls.pause({ since: NOW, by: 'ops', reason: 'maintenance' });
    expect(await controls.readPause(NOW + 10 * WEEK)).toEqual({ since: NOW, by: 'ops', reason: 'maintenance' });
    await controls.resume();
    expect(await controls.readPause(NOW)).toBeUndefined();
    await controls.resume(); // a second time is no error
  });

  it('ends by itself at its time, and can be changed', async () => {
    await controls.pause({ since: NOW, by: 'ops', reason: '', until: NOW + 60 });
    expect(await controls.readPause(NOW + 59)).toMatchObject({ until: NOW + 60 });
    expect(await controls.readPause(NOW + 60)).toBeUndefined();
    await controls.pause({ since: NOW, by: 'ops', reason: 'longer' });
    expect(await controls.readPause(NOW + 60)).toEqual({ since: NOW, by: 'ops', reason: 'longer' });
  });
});

describe('a check with a limit of notices', () => {
  it('has the users whom it has told on record, of all its requests at once', async () => {
    const { id } = held();
    expect(await controls.readHold(id)).toEqual({ told: 0 });
    await Promise.all([20, 16, -4, 1].map((count) => controls.countTold(id, count, NOW)));
    expect(await controls.readHold(id)).toEqual({ told: 33 });
    expect((await controls.held(NOW)).map(({ name }) => name)).not.toContain(id);
  });

  it('is listed while it is held, with what an operator must know to decide', async () => {
    const state = { ...held(), room: 'room@muc.host' };
    await controls.countTold(state.id, 3, NOW);
    await controls.recordHold(state, NOW);
    expect(await controls.held(NOW)).toContainEqual({
      name: state.id,
      host: 'example.net',
      remote: 'muc.host',
      room: 'room@muc.host',
      since: NOW,
      told: 3,
      decided: 10,
      left: 5,
    });
    await controls.forgetHold(state.id);
    expect((await controls.held(NOW)).map(({ name }) => name)).not.toContain(state.id);
  });

  it.each(['release', 'drop'] as const)('%s: the check reads the decision, which is made once', async (decision) => {
    const state = held();
    await controls.recordHold(state, NOW);
    expect(await controls.decide(state.id, decision, 'ops')).toBe(true);
    expect(await controls.readHold(state.id)).toEqual({ told: 0, decision });
    expect((await controls.held(NOW)).map(({ name }) => name)).not.toContain(state.id);
    expect(await controls.decide(state.id, 'drop', 'ops')).toBe(false);
    expect(await controls.readHold(state.id)).toMatchObject({ decision });
  });

  it('about which nobody has to decide is refused, and no row is made', async () => {
    const counted = held();
    await controls.countTold(counted.id, 1, NOW);
    expect(await controls.decide('unknown', 'release', 'ops')).toBe(false);
    expect(await controls.decide(counted.id, 'release', 'ops')).toBe(false);
    const Key = { pk: { S: 'CONTROL' }, sk: { S: 'check#unknown' } };
    expect((await embedded.client.send(new GetItemCommand({ TableName: embedded.name, Key }))).Item).toBeUndefined();
  });

  it('keeps its decision if the check records again that it is held', async () => {
    const state = held();
    await controls.recordHold(state, NOW);
    await controls.decide(state.id, 'release', 'ops');
    await controls.recordHold(state, NOW + 60);
    expect(await controls.readHold(state.id)).toMatchObject({ decision: 'release' });
  });

  it('is forgotten a week after its last change', async () => {
    const state = held();
    await controls.recordHold(state, NOW);
    expect((await controls.held(NOW + WEEK)).map(({ name }) => name)).toContain(state.id);
    expect((await controls.held(NOW + WEEK + 1)).map(({ name }) => name)).not.toContain(state.id);
  });
});
