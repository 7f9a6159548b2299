import { basename } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take minutes, the longest first. Without earlier results to go by, Vitest would start some of them last. */
const SLOW = [
  ...['console', 'quiet', 'races', 'doubts', 'reentry-races', 'reentry', 'hold', 'closes', 'tracking', 'silence'],
  ...['heartbeat', 'production'],
  ...['faults', 'flap', 'scale', 'sender-load', 'reentry-scale'], // those of the busy ones
];

/** Starts the slow files first, so that the others are played beside them. */
export class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const rank = ({ moduleId }: TestSpecification): number => {
      const place = SLOW.indexOf(basename(moduleId, '.test.ts'));
      return place === -1 ? SLOW.length : place;
    };
    return sorted.sort((one, other) => rank(one) - rank(other));
  }
}
