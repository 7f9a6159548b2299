import type { Starter } from './client.ts';
import { converse } from './converse.ts';
import { dino } from './dino.ts';
import { gajim } from './gajim.ts';
import { poezio } from './poezio.ts';
import { profanity } from './profanity.ts';
import { slixmpp } from './slixmpp.ts';

const DESKTOP = ['xvfb', 'openbox', 'xdotool', 'imagemagick', 'dbus-daemon', 'fonts-dejavu-core'];
const SCREEN_READER = ['at-spi2-core', 'gir1.2-atspi-2.0', 'python3-gi'];

/** The clients that there are, and the Debian packages that each needs. */
export const CLIENTS = {
  slixmpp: { start: slixmpp, packages: ['python3-slixmpp'] },
  profanity: { start: profanity, packages: ['tmux', 'profanity'] },
  poezio: { start: poezio, packages: ['tmux', 'poezio'] },
  converse: { start: converse, packages: ['chromium'] },
  gajim: { start: gajim, packages: ['gajim', ...DESKTOP] },
  dino: { start: dino, packages: ['dino-im', 'ca-certificates', ...SCREEN_READER, ...DESKTOP] },
} as const satisfies Record<string, { readonly start: Starter; readonly packages: readonly string[] }>;
export type Kind = keyof typeof CLIENTS;
