import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Duplex } from 'node:stream';

/**
 * Kept-alive connections, and what becomes of them between invocations.
 *
 * After an invocation, Lambda freezes the function until the next one, for seconds or for hours:
 * https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html. Meanwhile a connection can end, or a
 * gateway on the way can forget it, and a frozen function does not learn of it. A request over such a connection fails
 * or, if its packets are dropped, is not answered: after its time-out the server would count as out of reach. So each
 * invocation begins with `closeIdleConnections`.
 */

/**
 * A connection that was idle for longer is closed. Gateways forget a connection after minutes (a NAT gateway after
 * 350 s), but a server that is replaced drops its connections within seconds. A function that is invoked more often
 * keeps its connections; any other opens new ones, which takes some tens of milliseconds.
 */
export const LONGEST_IDLE_MS = 5000;

/** For node:http, for node:https, and as both for the SDK's request handler. */
export interface Agents {
  readonly httpAgent: HttpAgent;
  readonly httpsAgent: HttpsAgent;
}

const agents: HttpAgent[] = [];
/** When each connection became idle, in milliseconds since the epoch: timers do not run in a frozen function. */
const idleSince = new WeakMap<Duplex, number>();

/** @param maxSockets connections to one host at a time */
export function keepAlive(maxSockets: number): Agents {
  const options = { keepAlive: true, maxSockets };
  return { httpAgent: observed(new HttpAgent(options)), httpsAgent: observed(new HttpsAgent(options)) };
}

/** Closes the connections of all agents that a freeze may have broken. To be called first in each invocation. */
export function closeIdleConnections(): void {
  const oldest = Date.now() - LONGEST_IDLE_MS;
  for (const socket of agents.flatMap(({ freeSockets }) => Object.values(freeSockets).flatMap((free) => free ?? []))) {
    if ((idleSince.get(socket) ?? 0) < oldest) socket.destroy();
  }
}

function observed<Agent extends HttpAgent>(agent: Agent): Agent {
  const keep = agent.keepSocketAlive.bind(agent);
  agent.keepSocketAlive = (socket) => {
    idleSince.set(socket, Date.now());
    return keep(socket);
  };
  agents.push(agent);
  return agent;
}
