import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import xml from '@xmpp/xml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Ejabberd } from '../../lab/ejabberd.ts';
import { Lab, until } from '../../lab/lab.ts';
import { failure } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import type { User } from '../../lab/user.ts';
import { MODULES } from '../../local/installation.ts';

/** What an operator of ejabberd does: installs the module, and uses its commands. */
const MODULE = 'mod_ping_muc_webhook';

describe('the module', () => {
  let lab: Lab;
  let ejabberd: Ejabberd;
  let contrib: string;

  beforeAll(async () => {
    lab = await Lab.open();
    contrib = join(lab.directory, 'modules');
    await mkdir(join(contrib, 'sources'), { recursive: true });
    await cp(join(MODULES.ejabberd, MODULE), join(contrib, 'sources', MODULE), { recursive: true });
    ejabberd = await Ejabberd.start(lab, { host: lab.address(2), contrib });
  });
  afterAll(() => lab.close());

  it('is compiled and installed by ejabberdctl module_install, without a warning, and conforms', async () => {
    // not by the HTTP API, which cannot write the lists of these commands with ejabberd 24.12
    const known = (which: 'available' | 'installed'): Promise<string> => ejabberd.shell(`ext_mod:${which}(${MODULE}).`);
    expect(await known('available')).toBe('true');
    expect(await ejabberd.ejabberdctl('module_install', { module: MODULE })).toBe(0);
    expect(await known('installed')).toBe('true');
    expect(await ejabberd.log()).not.toMatch(/\[(?:warning|error)\].*ping_muc/);
    expect(await ejabberd.ejabberdctl('module_uninstall', { module: MODULE })).toBe(0);
    expect(await ejabberd.ejabberdctl('module_check', { module: MODULE })).toBe(0);
  });
});

describe('the command', () => {
  let testBed: TwoServers;
  let ejabberd: Ejabberd;
  let juliet: User;
  let romeo: User;
  let room: string;

  beforeAll(async () => {
    testBed = await TwoServers.open({ ping_muc_patience: 0 });
    ejabberd = Ejabberd.of(testBed.home);
    [juliet, romeo] = [await testBed.user('juliet'), await testBed.user('romeo')];
    room = testBed.room('room');
    await testBed.join(juliet, room, 'Juliet');
    await testBed.join(romeo, room, 'Romeo');
  });
  afterAll(() => testBed.close());

  const text = async (name: string, values: Readonly<Record<string, string>> = {}): Promise<string> =>
    JSON.stringify(await ejabberd.ejabberdctl(name, values));

  it('ping_muc_status shows how the last webhook went, what waits, and whether the dry run is on', async () => {
    const status = await text('ping_muc_status');
    for (const part of ['accepted', 'empty', '2, in rooms on 1 remote host', 'Dry run: off'])
      expect(status).toContain(part);
    await testBed.home.set({ ping_muc_dry_run: true });
    expect(await text('ping_muc_status')).toContain('Dry run: on');
    await testBed.home.set();
  });

  it('ping_muc_joins lists who is where, all or those with a text in their names', async () => {
    expect(await text('ping_muc_joins', { part: '' })).toContain(`${juliet.jid} in ${room} as Juliet`);
    const some = await text('ping_muc_joins', { part: 'Romeo' });
    expect(some).toContain(`${romeo.jid} in ${room} as Romeo`);
    expect(some).not.toContain('Juliet');
  });

  it('ping_muc_check finds a user who is out although nothing closed, and leaves the others alone', async () => {
    await testBed.dropOccupant(room, juliet);
    const since = Date.now();
    expect(await text('ping_muc_check', { target: room })).toContain(`A check of ${room} is requested`);
    expect(await testBed.checkDone(since)).toMatchObject({ pinged: 2, joined: 1, left: 1, notified: 1 });
    await until('she is notified', () => juliet.notices().length === 1);
    expect(romeo.notices()).toEqual([]);
  });

  it('ping_muc_announce reports all joins again, and a heartbeat', async () => {
    const stored = (): number => testBed.runtime.lines.filter(({ message }) => message === 'webhook stored').length;
    const before = stored();
    expect(await text('ping_muc_announce')).toContain('being reported');
    await until('they are reported', () => stored() > before);
  });
});

describe('the module starts while users are in rooms', () => {
  let testBed: ScriptedRooms;
  let ejabberd: Ejabberd;

  beforeAll(async () => {
    testBed = await ScriptedRooms.open();
    ejabberd = Ejabberd.of(testBed.home);
  });
  afterAll(() => testBed.close());

  const joins = async (): Promise<string> => JSON.stringify(await ejabberd.ejabberdctl('ping_muc_joins', { part: '' }));

  it('for the first time: it finds those who are still in', async () => {
    const room = testBed.muc().room('found');
    for (const nick of ['Juliet', 'Romeo']) {
      const user = await testBed.user(nick.toLowerCase(), 'found');
      await testBed.join(user, room, nick);
      if (nick === 'Romeo') testBed.muc().dropOccupant(room, user.jid);
    }
    const host = `<<"${ejabberd.host}">>`;
    await ejabberd.shell(
      `gen_mod:stop_module_keep_config(${host}, ${MODULE}),
      [persistent_term:erase(Key) || {Key, _} <- persistent_term:get(), element(1, Key) =:= ping_muc_handover],
      gen_mod:start_module(${host}, ${MODULE}).`,
    );
    await until('both are asked about', () => testBed.muc().count('ping', room) === 2);
    await until('Juliet is found', async () => (await joins()).includes('as Juliet'));
    expect(await joins()).not.toContain('Romeo');
  });

  it('after an error of the room made ejabberd forget an address: only the join of a user who is out ends', async () => {
    const room = testBed.muc().room('error');
    for (const nick of ['Juliet', 'Romeo']) {
      const user = await testBed.user(nick.toLowerCase(), 'error');
      await testBed.join(user, room, nick);
      testBed.muc().script('enter', room, failure('presence', 'wait', 'resource-constraint'));
      await user.send(xml('presence', { to: `${room}/${nick}` }, xml('show', {}, 'away')));
      await until('the error arrives', () => user.received.some(({ stanza }) => stanza.attrs['type'] === 'error'));
      testBed.muc().script('enter', room);
      if (nick === 'Romeo') testBed.muc().dropOccupant(room, user.jid);
    }
    await testBed.home.restartModule();
    await until("Romeo's has ended", async () => !(await joins()).includes('Romeo'));
    expect(await joins()).toContain(`in ${room} as Juliet`);
    expect(testBed.muc().count('ping', room)).toBe(2);
  });
});
