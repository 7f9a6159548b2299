import { expect, it } from 'vitest';
import { firstState } from '../../functions/core/check-state.ts';
import type { CheckRequest } from '../../functions/core/events.ts';
import { NewerClose } from '../../functions/core/newer-close.ts';
import { HOST, REMOTE } from './world.ts';

/** Rule 5 (docs/rules.md): two batches look for a newer close at the same time. */
it('a newer close that one batch has found takes over, whatever another batch finds while it looks', async () => {
  const close: CheckRequest = {
    host: HOST,
    remote: REMOTE,
    at: 1_000_000_000_000_000,
    delay: 60,
    timeout: 60,
    patience: 0,
    dryRun: false,
    reenter: false,
    cause: 'close',
  };
  const record = (seconds: number): object => ({ ...close, at: close.at + seconds * 1e6 });
  const reads = [record(60), record(3600)]; // within five delays, and far beyond
  const newerClose = new NewerClose(firstState(close, 'id', 60, close.at / 1e6), {
    readClose: () => Promise.resolve(reads.shift() as never),
    passOn: () => Promise.resolve(),
  });
  expect(await Promise.all([newerClose.lookUp(), newerClose.lookUp()])).toEqual([true, true]);
  expect(newerClose.takesOver).toBe(true);
});
