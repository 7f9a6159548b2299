declare module 'dynalite' {
  import type { Server } from 'node:http';

  /** `createTableMs` is in milliseconds; without `path` everything is kept in memory. */
  export default function dynalite(options: { path?: string; createTableMs?: number }): Server;
}
