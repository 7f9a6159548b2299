import { basename } from 'node:path';
import { beforeEach } from 'vitest';
import { excluded } from '../lab/differences.ts';
import { ROLES } from '../lab/servers.ts';

/** Leaves out the tests that are not for the servers of this run (lab/differences.ts), with the reason. */
beforeEach(({ task, skip }) => {
  const names: string[] = [task.name];
  for (let { suite } = task; suite !== undefined; { suite } = suite) names.unshift(suite.name);
  const reason = excluded(ROLES, basename(task.file.name, '.test.ts'), names.join(' '));
  if (reason !== undefined) skip(reason);
});
