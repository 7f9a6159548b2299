import xml, { Parser, type Element } from '@xmpp/xml';
import type { Join } from './events.ts';
import { isXmlText } from './jid.ts';

/** The contract's functions-to-server half: the four stanzas that the server's API takes, and its answers. */

/** Names a join in a ping, a re-entry and a notice. The server sends a stanza of its own instead, without the name. */
const NS_JOIN = 'urn:ping-muc:0';
const NS_PING = 'urn:xmpp:ping';
const NS_DISCO_INFO = 'http://jabber.org/protocol/disco#info';
const NS_MUC = 'http://jabber.org/protocol/muc';
const NS_MUC_USER = 'http://jabber.org/protocol/muc#user';
const NS_STANZAS = 'urn:ietf:params:xml:ns:xmpp-stanzas';

/** The contract's bounds for one request: stanzas, bytes, and characters that cost a parser time. */
export const MAX_STANZAS = 1000;
const MAX_REQUEST_BYTES = 1024 * 1024;
const MAX_REQUEST_MARKS = 30_000;
/** Bytes and characters kept for the root element. */
const ROOT_BYTES = 64;

/** The reason in a notice if the room gave no text. These are the words of mod_ping_muc. */
export const DEFAULT_REASON = 'Connection to remote server lost';

/** A room's text is cut to so many characters: it comes from the remote server, and can have any length. */
const MAX_REASON = 256;

/** What came back for one stanza. A notice that was delivered has no answer. */
export type Answer =
  | {
      readonly kind: 'result';
      /** A proof: since the close, the room has sent the session something that only occupants get. */
      readonly isProof?: true;
      /** Of a re-entry: the room's history does not contain everything that the session missed. */
      readonly hasGap?: true;
    }
  | {
      readonly kind: 'error';
      /** RFC 6120 §8.3.2: auth, cancel, continue, modify, wait. */
      readonly type: string;
      /** RFC 6120 §8.3.3. */
      readonly condition: string;
      /** Who made the error, if the error says so. */
      readonly by?: string;
      readonly text?: string;
      /**
       * No answer came in time. `room`: other stanzas came from its host, so an answer could have come. `host`: nothing
       * came from the host. `broken`: a stream ended in that time, and the answer may be lost with it. Without this
       * field, the server itself reports that the host is out of reach.
       */
      readonly silence?: 'room' | 'host' | 'broken';
      /** The newest close of the pair of hosts that the server knows, µs; its report may still be on its way. */
      readonly closed?: number;
      /** The session is entering the room again at this moment. */
      readonly isRejoining?: true;
    };

/** A stanza to be sent. Its answer has the same id. */
export interface Stanza {
  readonly id: string;
  readonly xml: string;
  /** The server may refuse re-entries, and so may the room. Whatever the answer is, a notice can follow. */
  readonly isReentry?: true;
}

/** The server's answer can't be read. */
export class AnswerError extends Error {
  override readonly name = 'AnswerError';
}

/** `at` is unique for a host, and so names the stanza as it names the join. */
export function stanzaId(join: Pick<Join, 'at'>): string {
  return `ping-muc-${join.at}`;
}

const naming = (join: Pick<Join, 'at'>, more: Readonly<Record<string, string>> = {}): Element =>
  xml('join', { xmlns: NS_JOIN, at: String(join.at), ...more });

/**
 * XEP-0410 §3: a ping from the occupant's session to its own occupant JID.
 * @param closeAt the close whose check asks, µs: a proof since then answers the ping, too
 */
export function ping(join: Join, closeAt?: number): Stanza {
  const id = stanzaId(join);
  const attributes = { type: 'get', id, from: join.user, to: `${join.room}/${join.nick}` };
  const iq = xml(
    'iq',
    attributes,
    xml('ping', { xmlns: NS_PING }),
    naming(join, closeAt === undefined ? {} : { close: String(closeAt) }),
  );
  return { id, xml: iq.toString() };
}

/** XEP-0045 §6.4: whether the room exists, asked as one of its occupants. */
export function roomQuery(join: Join): Stanza {
  const id = stanzaId(join);
  const iq = xml('iq', { type: 'get', id, from: join.user, to: join.room }, xml('query', { xmlns: NS_DISCO_INFO }));
  return { id, xml: iq.toString() };
}

/**
 * Asks the server to enter the room again on behalf of the session (rule 10, docs/rules.md; XEP-0045 §7.2). The server
 * uses only the name of the join, and sends the room a presence of its own making.
 */
export function reentry(join: Join): Stanza {
  const id = stanzaId(join);
  const presence = xml(
    'presence',
    { id, from: join.user, to: `${join.room}/${join.nick}` },
    xml('x', { xmlns: NS_MUC }),
    naming(join),
  );
  return { id, xml: presence.toString(), isReentry: true };
}

/** The presence that notifies a client that it is out of the room (rule 8, docs/rules.md; XEP-0045 §9.8 for 333). */
export function notice(join: Join, reason: string | undefined): Stanza {
  const id = stanzaId(join);
  const presence = xml(
    'presence',
    { type: 'unavailable', id, from: `${join.room}/${join.nick}`, to: join.user },
    xml(
      'x',
      { xmlns: NS_MUC_USER },
      xml('item', { affiliation: 'none', role: 'none' }, xml('reason', {}, noticeReason(reason))),
      ...['110', '330', '333'].map((code) => xml('status', { code })),
    ),
    naming(join),
  );
  return { id, xml: presence.toString() };
}

function noticeReason(text: string | undefined): string {
  const trimmed = text?.trim() ?? '';
  if (trimmed === '' || !isXmlText(trimmed)) return DEFAULT_REASON;
  const characters = Array.from(trimmed);
  return characters.length <= MAX_REASON ? trimmed : `${characters.slice(0, MAX_REASON - 1).join('')}…`;
}

/** Splits stanzas into requests within the contract's bounds, however long the names of users and rooms are. */
export function requests(stanzas: readonly Stanza[]): readonly (readonly Stanza[])[] {
  const parts: Stanza[][] = [];
  let left = { stanzas: 0, bytes: 0, marks: 0 };
  for (const stanza of stanzas) {
    const bytes = Buffer.byteLength(stanza.xml);
    const marks = stanza.xml.match(/[<&=\r\n]/g)?.length ?? 0;
    if (left.stanzas < 1 || left.bytes < bytes || left.marks < marks) {
      parts.push([]);
      left = { stanzas: MAX_STANZAS, bytes: MAX_REQUEST_BYTES - ROOT_BYTES, marks: MAX_REQUEST_MARKS - ROOT_BYTES };
    }
    parts.at(-1)?.push(stanza);
    left = { stanzas: left.stanzas - 1, bytes: left.bytes - bytes, marks: left.marks - marks };
  }
  return parts;
}

/** The body of one request. `timeout` is in seconds: how long the server waits for each answer. */
export function requestBody(stanzas: readonly Stanza[], timeout: number): string {
  return `<xmpp timeout="${timeout}">${stanzas.map((stanza) => stanza.xml).join('')}</xmpp>`;
}

/**
 * Reads the server's answer: the answers by the ids of their stanzas.
 * @throws AnswerError when it is not one whole `<xmpp>` element
 */
export function readAnswers(body: string): Map<string, Answer> {
  const answers = new Map<string, Answer>();
  const seen: { root?: string; ended?: true; fault?: string | undefined } = {};
  const parser = new Parser();
  parser.on('start', (element: Element) => {
    seen.root = element.name;
  });
  parser.on('element', (element: Element) => {
    const { id } = element.attrs as Record<string, string | undefined>;
    if (id !== undefined) answers.set(id, readAnswer(element));
  });
  parser.on('end', () => {
    seen.ended = true;
  });
  parser.on('error', (error: Error) => {
    seen.fault ??= error.message;
  });
  try {
    parser.write(body);
  } catch (error) {
    seen.fault ??= error instanceof Error ? error.message : String(error);
  }
  seen.fault ??= seen.root === 'xmpp' ? undefined : `got ${seen.root === undefined ? 'no XML' : `<${seen.root}>`}`;
  seen.fault ??= seen.ended === true ? undefined : 'it is cut short';
  if (seen.fault !== undefined)
    throw new AnswerError(`the server API's answer must be one <xmpp> element: ${seen.fault}`);
  return answers;
}

function readAnswer(element: Element): Answer {
  const type = element.attrs['type'] as string | undefined;
  if (type === 'result' || (element.name === 'presence' && type === undefined)) {
    const isProof = element.getChild('proof', NS_JOIN) !== undefined;
    const hasGap = element.getChild('reentry', NS_JOIN)?.attrs['missed'] === 'yes';
    return { kind: 'result', ...(isProof ? { isProof } : {}), ...(hasGap ? { hasGap } : {}) };
  }
  const error = element.getChild('error');
  const condition = error?.children.find(
    (child): child is Element =>
      typeof child !== 'string' && child.attrs['xmlns'] === NS_STANZAS && child.name !== 'text',
  );
  const by = error?.attrs['by'] as string | undefined;
  const text = error?.getChildText('text', NS_STANZAS) ?? undefined;
  const silence = readSilence(error?.getChild('no-answer', NS_JOIN));
  const closed = Number(error?.getChild('closed', NS_JOIN)?.attrs['at']);
  return {
    kind: 'error',
    type: String(error?.attrs['type'] ?? 'cancel'),
    condition: condition?.name ?? 'undefined-condition',
    ...(by === undefined ? {} : { by }),
    ...(text === undefined ? {} : { text }),
    ...(silence === undefined ? {} : { silence }),
    ...(Number.isSafeInteger(closed) ? { closed } : {}),
    ...(error?.getChild('rejoining', NS_JOIN) === undefined ? {} : { isRejoining: true }),
  };
}

/** A server of the previous release says only that there is no answer: its streams were up. */
function readSilence(noAnswer: Element | undefined): 'room' | 'host' | 'broken' | undefined {
  if (noAnswer === undefined) return undefined;
  if (noAnswer.attrs['streams'] === 'broken') return 'broken';
  return noAnswer.attrs['heard'] === 'false' ? 'host' : 'room';
}
