import type { IncomingMessage } from 'node:http';

/** The body exceeds the limit. */
export class TooLargeError extends Error {
  override readonly name = 'TooLargeError';
}

/** Reads a request's body. @throws TooLargeError after `limit` bytes, without reading the rest */
export async function readRequestBody(request: IncomingMessage, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += (chunk as Buffer).length;
    if (size > limit) throw new TooLargeError(`the body may take ${limit} bytes`);
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}
