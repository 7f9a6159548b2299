import xml from '@xmpp/xml';
import { Lab, sleep, until } from './lab.ts';
import { Prosody } from './prosody.ts';
import { Runtime } from './runtime.ts';
import { ScriptedMuc } from './scripted-muc.ts';
import { User } from './user.ts';
import type { Totals } from '../../functions/core/check.ts';

/** Rooms that one session is in: the module watches 1,000. */
const ROOMS_PER_SESSION = 500;
const DELAY_SECONDS = 3;
/** Presences that are on their way into rooms at a time. */
const JOINING = 2000;
/** Recording is as slow as the embedded database, some 1,000 a second on a quiet machine. */
const MS_PER_JOIN = 10;

export interface ScaleResult {
  readonly joins: number;
  /** Notices to joins that the service still knew. */
  readonly wrong: number;
  /** Lost joins without a notice. */
  readonly missed: number;
  /** Notices beyond the first for one join. */
  readonly double: number;
  readonly notices: number;
  readonly pings: number;
  readonly discos: number;
  /** From the moment that the check was due to its end. */
  readonly seconds: number;
  /** The most that the check function's heap held after a full collection, in megabytes. */
  readonly heldMb: number;
  readonly totals: Totals;
}

/**
 * Plays one loss at size, on real servers: many joins in a chat service that does as it is told, both streams cut, and
 * every notice counted that reached a client.
 * @param isLost which joins the service forgets, by their index
 */
export async function playScale(joins: number, isLost: (index: number) => boolean, progress: (step: string) => void = () => undefined): Promise<ScaleResult> {
  const lab = await Lab.open();
  try {
    const runtime = await Runtime.start(lab);
    const sessions = Math.ceil(joins / ROOMS_PER_SESSION);
    const names = Array.from({ length: sessions }, (_, index) => `user${index}`);
    const settings = runtime.prosodySettings({ ping_muc_delay: DELAY_SECONDS, ping_muc_timeout: 60 });
    const home = await Prosody.start(lab, { host: lab.address(2), users: names, ...settings });
    const domain = lab.address(4);
    const away = await Prosody.start(lab, { host: lab.address(3), components: [domain] });
    const muc = await ScriptedMuc.open(lab, away, domain);
    const users: User[] = [];
    for (const name of names) users.push(await User.connect(lab, home, name, 'phone'));

    const occupant = (index: number): { user: User; room: string; nick: string } => ({
      user: users[Math.floor(index / ROOMS_PER_SESSION)] as User,
      room: muc.room(`room${index % ROOMS_PER_SESSION}`),
      nick: `nick${index}`,
    });
    for (let index = 0; index < joins; index += 1) {
      const { user, room, nick } = occupant(index);
      await user.send(xml('presence', { to: `${room}/${nick}` }, xml('x', { xmlns: 'http://jabber.org/protocol/muc' })));
      if (index % JOINING === JOINING - 1) {
        progress(`${index + 1} of ${joins} are joining`);
        await until('the service keeps up', () => muc.count('enter') > index - JOINING, JOINING * MS_PER_JOIN);
      }
    }
    const recorded = (): number => runtime.lines.reduce((sum, line) => sum + Number(line['JoinsRecorded'] ?? 0), 0);
    progress('the joins are being recorded');
    await until(`${joins} joins are recorded`, () => recorded() >= joins, 30_000 + joins * MS_PER_JOIN);
    const baseline = { pings: muc.count('ping'), discos: muc.count('disco') };

    for (let index = 0; index < joins; index += 1) {
      const { user, room } = occupant(index);
      if (isLost(index)) muc.forget(room, user.jid);
    }
    progress('both streams are cut');
    const cut = Date.now();
    for (const server of [home, away]) for (const link of server.links.values()) link.drop();
    const done = await until(
      'the check is done',
      () => runtime.lines.find((line) => line['message'] === 'check done' && Date.parse(String(line['time'])) >= cut),
      60_000 + joins * MS_PER_JOIN,
    );
    const reports = (): typeof runtime.lines => runtime.lines.filter((line) => line['message'] === 'REPORT' && line['requestId'] === done['requestId']);
    await until('the function reports', () => reports()[0]);
    await sleep(2000); // what comes too late, or twice, has come by now
    const [report] = reports();

    const told = users.map((user) => Map.groupBy(user.notices(), ({ stanza }) => String(stanza.attrs['from'])));
    const counts = { wrong: 0, missed: 0, double: 0 };
    for (let index = 0; index < joins; index += 1) {
      const { room, nick } = occupant(index);
      const notices = told[Math.floor(index / ROOMS_PER_SESSION)]?.get(`${room}/${nick}`)?.length ?? 0;
      if (!isLost(index)) counts.wrong += notices;
      else if (notices === 0) counts.missed += 1;
      else counts.double += notices - 1;
    }
    return {
      joins,
      ...counts,
      notices: users.reduce((sum, user) => sum + user.notices().length, 0),
      pings: muc.count('ping') - baseline.pings,
      discos: muc.count('disco') - baseline.discos,
      seconds: (Number(done['CheckLateness']) + Number(report?.['durationMs'])) / 1000,
      heldMb: Number(report?.['heldMb']),
      totals: done['totals'] as Totals,
    };
  } finally {
    await lab.close();
  }
}
