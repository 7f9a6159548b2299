declare module 'dynalite' {
  import type { Server } from 'node:http';

  /** `createTableMs` is in milliseconds. Without `path`, all data is kept in memory. */
  export default function dynalite(options: { path?: string; createTableMs?: number }): Server;
}
