import { afterAll, beforeAll, expect, it } from 'vitest';
import { FAULTS, SHORT_EXTENT, TestBedPool } from '../../lab/faults.ts';

/** Each fault for a short time, several at once. For longer faults: npm run test:faults. */
const TEST_BEDS = 4;
const EXTENT = { ...SHORT_EXTENT, seed: Number(process.env['FAULTS_SEED'] ?? Date.now() % 1_000_000) };
const pool = new TestBedPool(TEST_BEDS);

beforeAll(() => {
  process.stderr.write(`FAULTS_SEED=${EXTENT.seed}\n`);
});
afterAll(() => pool.close());

it.concurrent.each(Object.keys(FAULTS))(
  '%s: every lost user is notified exactly once, and nobody else',
  async (fault) => {
    const { lost, doubled, wrong, expected } = await pool.run(fault, EXTENT);
    expect({ lost, doubled, wrong }).toEqual({ lost: 0, doubled: 0, wrong: 0 });
    expect(expected > 0).toBe(fault !== 'Prosody killed while a check waits');
  },
  240_000,
);
