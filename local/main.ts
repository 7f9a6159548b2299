import { run } from './cli.ts';

/** `npm start`. */
run();
