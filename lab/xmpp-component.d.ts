declare module '@xmpp/component' {
  import type { EventEmitter } from 'node:events';

  interface Component extends EventEmitter {
    start(): Promise<unknown>;
    stop(): Promise<unknown>;
    write(xml: string): Promise<void>;
    readonly reconnect: { stop(): void };
  }

  /** XEP-0114. */
  export function component(options: { service: string; domain: string; password: string }): Component;
}
