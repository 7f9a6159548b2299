import type { ServerResponse } from 'node:http';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { afterEach, beforeAll, afterAll, describe, expect, it, vi } from 'vitest';
import { Secrets } from '../../functions/adapters/secrets.ts';
import { ServerRefusedError, ServerUnreachableError, StanzaApi } from '../../functions/adapters/server.ts';
import type { Join } from '../../functions/core/events.ts';
import { decodeSecret, verify } from '../../functions/core/signature.ts';
import { notice, ping, reentry, stanzaId } from '../../functions/core/stanzas.ts';
import { ERRORS } from '../../functions/names.ts';
import { type Endpoint, listen } from '../../lab/endpoint.ts';
import { HOST, REMOTE, Server } from './world.ts';

const secret = (byte: number): string => `whsec_${Buffer.alloc(32, byte).toString('base64')}`;
const [CURRENT, PREVIOUS, NEXT] = [secret(1), secret(2), secret(3)];
const join: Join = {
  host: HOST,
  remote: REMOTE,
  room: `room@${REMOTE}`,
  user: `user@${HOST}/phone`,
  nick: 'nick',
  at: 1795355000123456,
};

let manager: Endpoint;
let stored: object;
let api: Endpoint | undefined;
beforeAll(async () => {
  manager = await listen((_request, response) =>
    response.end(JSON.stringify({ SecretString: JSON.stringify(stored) })),
  );
});
afterAll(() => manager.close());
afterEach(async () => {
  vi.restoreAllMocks();
  await api?.close();
});

interface Answering {
  readonly endpoint: Endpoint;
  readonly server: StanzaApi;
  readonly send: (timeout?: number) => ReturnType<StanzaApi['send']>;
  readonly secrets: Secrets;
}

/** A stanza API with scripted answers, and a client of it. */
async function answering(answer: Parameters<typeof listen>[0], remaining = 900_000): Promise<Answering> {
  stored = { current: CURRENT, previous: PREVIOUS };
  const endpoint = await listen(answer);
  api = endpoint;
  const client = new SecretsManagerClient({
    endpoint: manager.url,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
  });
  const secrets = new Secrets(client, 'arn');
  const server = new StanzaApi(endpoint.url, secrets, () => remaining);
  return { endpoint, server, secrets, send: (timeout = 60) => server.send(HOST, [ping(join)], timeout) };
}

const xmpp = (response: ServerResponse, body = '<xmpp/>'): unknown =>
  response.writeHead(200, { 'content-type': 'application/xmpp+xml' }).end(body);
const problem = (
  response: ServerResponse,
  status: number,
  headers: Record<string, string> = {},
  detail = 'no',
): unknown =>
  response
    .writeHead(status, { 'content-type': 'application/problem+json', ...headers })
    .end(JSON.stringify({ type: 'about:blank', title: 'No', status, detail }));

describe('a request to the stanza API', () => {
  it('is what the contract says, and its answers are read', async () => {
    const xmppServer = new Server();
    xmppServer.sessions.add(join.user);
    xmppServer.joins.set(`${join.room} ${join.user}`, join);
    xmppServer.room(join.room).occupants.set(join.user, join.nick);
    const { endpoint, send } = await answering((request, response) =>
      xmpp(response, xmppServer.answer(request.body.toString()).document),
    );
    expect(await send(45)).toEqual(new Map([[stanzaId(join), { kind: 'result' }]]));
    const [request] = endpoint.received;
    expect(request?.url).toBe('/stanzas');
    expect(request?.headers['content-type']).toBe('application/xmpp+xml');
    expect(request?.body.toString()).toMatch(/^<xmpp timeout="45"><iq /);
  });

  it('is signed with all live secrets, so that either is enough to verify it', async () => {
    const { endpoint, send } = await answering((_request, response) => xmpp(response));
    await send();
    const [{ headers, body }] = endpoint.received as [Endpoint['received'][number]];
    expect(headers['webhook-signature']).toMatch(/^v1,\S+ v1,\S+$/);
    for (const one of [CURRENT, PREVIOUS])
      expect(verify([decodeSecret(one)], headers as Record<string, string>, body, Date.now() / 1000).id).toMatch(
        /^msg_/,
      );
  });

  it("goes to the host's own address where the URL has a place for it", async () => {
    const { endpoint, secrets } = await answering((_request, response) => xmpp(response));
    await new StanzaApi(`${endpoint.url}/{host}/ping_muc/`, secrets, () => 900_000).send(
      'example.org',
      [notice(join, 'x')],
      1,
    );
    expect(endpoint.received[0]?.url).toBe('/example.org/ping_muc/stanzas');
  });

  it('has an id of its own', async () => {
    const { endpoint, send } = await answering((_request, response) => xmpp(response));
    await send();
    await send();
    expect(new Set(endpoint.received.map(({ headers }) => headers['webhook-id'])).size).toBe(2);
  });
});

describe('a server that asks to wait', () => {
  it.each([429, 503])(
    'by %i and Retry-After gets the same request again, under its id, with a newer timestamp',
    async (status) => {
      const times: number[] = [];
      const { endpoint, send } = await answering((_request, response, n) => {
        times.push(Date.now());
        return n === 1 ? problem(response, status, { 'retry-after': '1' }) : xmpp(response);
      });
      await send();
      const [first, second] = endpoint.received.map(({ headers }) => headers);
      expect(endpoint.received).toHaveLength(2);
      expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThanOrEqual(990);
      expect(second?.['webhook-id']).toBe(first?.['webhook-id']);
      expect(Number(second?.['webhook-timestamp'])).toBeGreaterThan(Number(first?.['webhook-timestamp']));
      expect(endpoint.received[1]?.body).toEqual(endpoint.received[0]?.body);
    },
  );

  it('is waited for here for five seconds in all, and then by the workflow, even if there is more time', async () => {
    const { endpoint, send } = await answering((_request, response) => problem(response, 503, { 'retry-after': '2' }));
    const began = Date.now();
    await expect(send()).rejects.toThrow(ServerUnreachableError);
    expect(Date.now() - began).toBeLessThan(5000);
    expect(endpoint.received).toHaveLength(3);
  }, 10_000);

  it('is waited for again once a request has succeeded', async () => {
    let passed = 0;
    const now = Date.now.bind(Date);
    vi.spyOn(Date, 'now').mockImplementation(() => now() + passed);
    const { endpoint, send } = await answering((_request, response, n) =>
      n % 2 === 1 ? problem(response, 429, { 'retry-after': '1' }) : xmpp(response),
    );
    await send();
    passed = 10_000;
    await send();
    expect(endpoint.received).toHaveLength(4);
  });

  it.each([
    ['for longer than we wait here', '6', 900_000],
    ['for longer than this invocation has', '4', 78_000],
    ['for hours', '9999', 900_000],
    ['without saying how long, when there is no time for anything', undefined, 1000],
    ['with a date, when there is no time for anything', 'Wed, 21 Oct 2026 07:28:00 GMT', 1000],
    ['and the answer could not be waited for', '1', 75_000],
  ])('%s is unreachable for now', async (_what, retryAfter, remaining) => {
    const { endpoint, send } = await answering(
      (_request, response) => problem(response, 429, retryAfter === undefined ? {} : { 'retry-after': retryAfter }),
      remaining,
    );
    await expect(send(60)).rejects.toThrow(ServerUnreachableError);
    expect(endpoint.received).toHaveLength(1);
  });
});

describe('a server that does not know our signature', () => {
  it('may have a newer secret: it is looked up again, once, and the request repeated', async () => {
    const { endpoint, send, secrets } = await answering((request, response) => {
      try {
        verify([decodeSecret(NEXT)], request.headers as Record<string, string>, request.body, Date.now() / 1000);
        xmpp(response);
      } catch {
        problem(response, 401);
      }
    });
    await secrets.keys();
    stored = { current: NEXT, previous: CURRENT };
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 20_000);
    await send();
    expect(endpoint.received).toHaveLength(2);
    const [first, second] = endpoint.received.map(({ headers }) => headers);
    expect(second?.['webhook-id']).toBe(first?.['webhook-id']);
    expect(Number(second?.['webhook-timestamp'])).toBeGreaterThan(Number(first?.['webhook-timestamp']));
  });

  it('even then is unreachable for now: the rotation may not have come through', async () => {
    let passed = 0;
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + passed);
    const { endpoint, send } = await answering((_request, response) => {
      passed += 20_000; // so that the secret could be looked up each time
      problem(response, 401);
    });
    await expect(send()).rejects.toThrow(ServerUnreachableError);
    expect(endpoint.received).toHaveLength(2);
  });

  it('is not bothered again where the secret has only just been looked up', async () => {
    const { endpoint, send } = await answering((_request, response) => problem(response, 401));
    await expect(send()).rejects.toThrow(ServerUnreachableError);
    expect(endpoint.received).toHaveLength(1);
  });
});

describe('a kept-alive connection that was dead', () => {
  it('says nothing about the server: the request is sent once more, with its id and a newer timestamp', async () => {
    const { endpoint, send } = await answering((_request, response, n) => {
      if (n === 2) response.socket?.resetAndDestroy();
      else xmpp(response);
    });
    await send();
    expect((await send()).size).toBe(0);
    const [, second, third] = endpoint.received.map(({ headers }) => headers);
    expect(endpoint.received).toHaveLength(3);
    expect(third?.['webhook-id']).toBe(second?.['webhook-id']);
    expect(Number(third?.['webhook-timestamp'])).toBeGreaterThan(Number(second?.['webhook-timestamp']));
    expect(() =>
      verify(
        [decodeSecret(CURRENT)],
        third as Record<string, string>,
        endpoint.received[2]?.body ?? Buffer.alloc(0),
        Date.now() / 1000,
      ),
    ).not.toThrow();
  });

  it('does not hide a server that closes every connection, and is not retried without time for an answer', async () => {
    const hangsUp: Parameters<typeof listen>[0] = (_request, response, n) =>
      n > 1 ? response.socket?.resetAndDestroy() : xmpp(response);
    const { endpoint, send } = await answering(hangsUp);
    await send();
    await expect(send()).rejects.toThrow(ServerUnreachableError);
    expect(endpoint.received).toHaveLength(3);
    await endpoint.close();
    const late = await answering(hangsUp, 10_000);
    await late.send();
    await expect(late.send()).rejects.toThrow(ServerUnreachableError);
    expect(late.endpoint.received).toHaveLength(2);
  });

  it('is not what an answer is that breaks off', async () => {
    const { endpoint, send } = await answering((_request, response, n) => {
      if (n === 1) return xmpp(response);
      response.writeHead(200, { 'content-length': 1000 }).write('<xmpp>');
      setTimeout(() => response.socket?.resetAndDestroy(), 20);
    });
    await send();
    await expect(send()).rejects.toThrow(ServerUnreachableError);
    expect(endpoint.received).toHaveLength(2);
  });
});

describe('a stanza that is not taken is no verdict', () => {
  const refusal = (by: string, name = 'iq'): string => {
    const error = `<error type="modify" by="${by}"><policy-violation xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">the user must be local</text></error>`;
    return `<xmpp><${name} type="error" id="${stanzaId(join)}">${error}</${name}></xmpp>`;
  };

  it('it is our fault, or another host’s module has answered, and the error says so', async () => {
    const { send } = await answering((_request, response) => xmpp(response, refusal(HOST)));
    const error = (await send().catch((reason: unknown) => reason)) as Error;
    expect(error).toBeInstanceOf(ServerRefusedError);
    expect(error.message).toMatch(
      new RegExp(
        `^http://\\S+ does not take the stanza ${stanzaId(join)} of ${HOST}: the user must be local; .*our fault.*another host.*\\{host\\}`,
      ),
    );
  });

  it('nor is a notice that another host’s module refuses: the row stays', async () => {
    const { server } = await answering((_request, response) => xmpp(response, refusal('other.example', 'presence')));
    await expect(server.send(HOST, [ping(join), notice({ ...join, at: join.at + 1 }, 'x')], 60)).resolves.toHaveLength(
      1,
    );
    await expect(server.send(HOST, [notice(join, 'x')], 60)).rejects.toThrow(ServerRefusedError);
  });

  it('but a re-entry may be refused by an older server, which does not know it: a notice follows', async () => {
    for (const by of [HOST, REMOTE, 'other.example']) {
      const { server } = await answering((_request, response) => xmpp(response, refusal(by, 'presence')));
      expect((await server.send(HOST, [reentry(join)], 60)).get(stanzaId(join)), by).toMatchObject({
        condition: 'policy-violation',
        by,
      });
    }
  });

  it('but a room may refuse a ping so, in its own name or another', async () => {
    const { send } = await answering((_request, response) => xmpp(response, refusal(REMOTE)));
    expect((await send()).get(stanzaId(join))).toMatchObject({ condition: 'policy-violation', by: REMOTE });
  });
});

describe('a server is unreachable for now, and worth hours of patience', () => {
  it('by the name that the workflow knows', () => {
    expect(new ServerUnreachableError('').name).toBe(ERRORS.serverUnreachable);
  });

  it.each([404, 500, 502, 504])('when it answers %i', async (status) => {
    const { send } = await answering((_request, response) =>
      problem(response, status, {}, 'a detail of no end '.repeat(1000)),
    );
    const error: unknown = await send().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ServerUnreachableError);
    expect((error as Error).message).toContain(`answered ${status}: `);
    expect((error as Error).message.length).toBeLessThan(400);
  });

  it('when nobody listens', async () => {
    const { endpoint, send } = await answering((_request, response) => xmpp(response));
    await endpoint.close();
    await expect(send()).rejects.toThrow(ServerUnreachableError);
  });

  it('when it hangs up without an answer, or in the middle of it', async () => {
    const { send } = await answering((_request, response, n) => {
      if (n === 2) response.writeHead(200, { 'content-length': 1000 }).write('<xmpp>');
      setTimeout(() => response.destroy(), 10);
    });
    await expect(send()).rejects.toThrow(ServerUnreachableError);
    await expect(send()).rejects.toThrow(ServerUnreachableError);
  });

  it.each(['before it answers', 'in the middle of its answer'])(
    'when it hangs %s: it gets its own time-out and 15 s',
    async (when) => {
      const abort = AbortSignal.timeout.bind(AbortSignal);
      const timeout = vi.spyOn(AbortSignal, 'timeout').mockImplementation(() => abort(50));
      const { send } = await answering((_request, response) => {
        if (when !== 'before it answers') response.writeHead(200).write('<xmpp>');
      });
      await expect(send(45)).rejects.toThrow(ServerUnreachableError);
      expect(timeout).toHaveBeenCalledWith(60_000);
    },
  );

  it.each([
    ['garbage', '502 Bad Gateway'],
    ['an answer that is cut short', '<xmpp><iq type="result" id="a"/>'],
    ['a page of a proxy', '<html></html>'],
  ])('when it answers 200 with %s', async (_what, body) => {
    const { send } = await answering((_request, response) => xmpp(response, body));
    await expect(send()).rejects.toThrow(ServerUnreachableError);
  });

  it('when its answer is larger than any that we asked for', async () => {
    const { send } = await answering((_request, response) => {
      response.on('error', () => undefined);
      response.writeHead(200);
      response.write('<xmpp>');
      for (let mebibyte = 0; mebibyte < 17; mebibyte += 1) response.write(Buffer.alloc(1024 * 1024, ' '));
      response.end('</xmpp>');
    });
    await expect(send()).rejects.toThrow(/longer than 16777216 bytes/);
    await expect(send()).rejects.toThrow(ServerUnreachableError);
  });

  it('but not when its answer is merely large', async () => {
    const { send } = await answering((_request, response) =>
      xmpp(response, `<xmpp>${' '.repeat(15 * 1024 * 1024)}</xmpp>`),
    );
    expect((await send()).size).toBe(0);
  });
});

it.each([400, 413, 415, 302])('a server that answers %i does not take what we send, and never will', async (status) => {
  const { endpoint, server } = await answering((_request, response) => problem(response, status, {}, 'wrong root'));
  await expect(server.send(HOST, [notice(join, 'x')], 60)).rejects.toThrow(ServerRefusedError);
  await expect(server.send(HOST, [notice(join, 'x')], 60)).rejects.toThrow(
    new RegExp(`answered ${status}: .*wrong root`),
  );
  expect(endpoint.received).toHaveLength(2);
});

it('no error tells the secret or the stanzas', async () => {
  for (const status of [400, 401, 500]) {
    const { send } = await answering((_request, response) => problem(response, status));
    const error = (await send().catch((reason: unknown) => reason)) as Error;
    for (const hidden of [CURRENT.slice(6), join.user, 'v1,'])
      expect(`${error.stack} ${String(error.cause)}`).not.toContain(hidden);
    await api?.close();
  }
});
