import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { AxeResults } from 'axe-core';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { METRIC_DIMENSION, METRIC_NAMESPACE } from '../../functions/names.ts';
import { ConsoleBrowser } from '../../lab/browser.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import type { User } from '../../lab/user.ts';
import { MetricStore } from '../../local/cloudwatch/metric-store.ts';

/** The console (docs/operating.md) in a real Chromium, while real servers join rooms and lose connections. */

/** What a page shows once it has its data. */
const LOADED: Readonly<Record<string, string | RegExp>> = {
  '/': 'XMPP servers that report',
  '/dashboard': 'Joins and leaves',
  '/alarms': 'Checks fail',
  '/checks': 'No check waits.',
  '/search': 'Part of a name is enough.',
  '/servers': 'XMPP servers that report',
  '/runbook': 'This page says what to do when an alarm is raised.',
};
/** Alarms are evaluated once a minute. */
const EVALUATED_MS = 75_000;
/** A name that a page must show as it is. */
const NICK = '<img src=x onerror=alert(1)> "Juliet" & co';

let testBed: TwoServers;
let browser: ConsoleBrowser;
let juliet: User;
let axe: string;

beforeAll(async () => {
  testBed = await TwoServers.open({ ping_muc_delay: 4 }, { environment: { PING_MUC_CONSOLE: '0' } });
  browser = await ConsoleBrowser.start(testBed.lab, testBed.runtime.consoleUrl);
  axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  juliet = await testBed.user('juliet');
  await testBed.join(juliet, testBed.room('balcony'), NICK);
});
afterAll(() => testBed.close());
afterEach(() => {
  expect(browser.faults.splice(0)).toEqual([]); // no error, no violation of the policy, no request to elsewhere
});

const isVisible = async (page: Page, text: string | RegExp, milliseconds = 15_000): Promise<void> => {
  await page.locator('main').getByText(text).first().waitFor({ timeout: milliseconds });
};

describe('each page', () => {
  it.each(Object.entries(LOADED))(
    '%s has a heading, its content, and its place in the navigation',
    async (path, content) => {
      const title = path === '/' ? 'Overview' : `${path.slice(1, 2).toUpperCase()}${path.slice(2)}`;
      const page = await browser.open(path);
      await isVisible(page, content);
      expect(await page.locator('h1').first().textContent()).toBe(title);
      expect(await page.locator('nav [aria-current=page]').textContent()).toBe(title);
      await page.context().close();
    },
  );

  it.each([
    ['light', 1280],
    ['dark', 1280],
    ['light', 375],
    ['dark', 375],
  ] as const)(
    'has no serious fault for assistive technology, and fits: %s, %i px wide',
    async (colorScheme, width) => {
      const who = `/search?${new URLSearchParams({ kind: 'user', name: juliet.jid.split('/')[0] ?? '' }).toString()}`;
      for (const path of [...Object.keys(LOADED), who]) {
        const page = await browser.open(path, { colorScheme, width });
        await isVisible(page, LOADED[path] ?? 'In rooms now');
        expect(await violations(page), path).toEqual([]);
        expect(await page.evaluate<number>('document.documentElement.scrollWidth'), path).toBeLessThanOrEqual(width);
        await page.context().close();
      }
    },
    180_000,
  );

  /** Serious and critical ones, and where. */
  async function violations(page: Page): Promise<readonly string[]> {
    await page.evaluate(axe);
    const found = await page.evaluate<AxeResults>('axe.run()');
    return found.violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
  }
});

it('the keyboard reaches everything: the skip link, the pages, and the heading of the page that was opened', async () => {
  const page = await browser.open('/');
  await isVisible(page, /servers?$/);
  const focused = (): Promise<string | null> => page.evaluate<string | null>('document.activeElement.textContent');
  await page.keyboard.press('Tab');
  expect(await focused()).toBe('Skip to the content');
  for (let tab = 0; tab < 3; tab += 1) await page.keyboard.press('Tab');
  expect(await focused()).toBe('Alarms');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/alarms');
  expect(await focused()).toBe('Alarms');
  expect(await page.evaluate<string>('document.activeElement.tagName')).toBe('H1');
  await page.goBack();
  await page.locator('h1', { hasText: 'Overview' }).waitFor();
  await page.context().close();
});

it('a join, and then the check of a close, appear on open pages by themselves', async () => {
  const overview = await browser.open('/');
  const joins = (): Promise<string | null> => overview.locator('.tile b').first().textContent();
  await isVisible(overview, 'No check waits.');
  expect(await joins()).toBe('1');
  const romeo = await testBed.user('romeo');
  await testBed.join(romeo, testBed.room('garden'), 'Romeo');
  await overview.locator('.tile b', { hasText: '2' }).first().waitFor();

  await testBed.dropOccupant(testBed.room('balcony'), juliet);
  const cut = testBed.dropStreams();
  await isVisible(overview, /^waits$/);
  await isVisible(overview, '2 joins to ask');
  await testBed.checkDone(cut);
  await isVisible(overview, 'No check waits.');
  await isVisible(overview, /^done$/);
  await overview.locator('.total.notified', { hasText: '1 notified' }).waitFor();
  await overview.locator('.tile b', { hasText: '1' }).first().waitFor();
  await overview.context().close();
});

it('search finds a user as one types, and one page says what happened to it in the room, with the answers', async () => {
  const page = await browser.open('/search');
  await page.getByLabel('User, room or remote host').pressSequentially('julie');
  await page.locator('.results a', { hasText: 'juliet@' }).click();
  await isVisible(page, 'No join is recorded at this moment.');
  await isVisible(page, 'Was out of the room, and was notified.');
  await isVisible(page, 'notice: delivered');
  await page
    .locator('a.name', { hasText: testBed.room('balcony') })
    .first()
    .click();
  await page.locator('.who', { hasText: testBed.room('balcony') }).waitFor();
  await page.context().close();
});

it('who is still in is confirmed by the check that asked, and names from the network are shown as they are', async () => {
  await testBed.join(juliet, testBed.room('balcony'), NICK);
  const query = new URLSearchParams({ kind: 'remote', name: testBed.muc });
  const page = await browser.open(`/search?${query.toString()}`);
  await isVisible(page, /still in the room/);
  await isVisible(page, NICK);
  expect(await page.locator('main img').count()).toBe(0);
  await page.context().close();
});

it('the secret is on no page', async () => {
  const { secret, consoleUrl } = testBed.runtime;
  expect(secret).toMatch(/^whsec_/);
  for (const path of ['overview', 'servers', 'checks', 'alarms', 'runbook', 'search?q=whsec', 'dashboard?range=1h'])
    expect(await (await fetch(`${consoleUrl}api/${path}`)).text(), path).not.toContain(secret);
});

it(
  'an alarm turns red on open pages, says why, and leads to its section of the runbook',
  async () => {
    await testBed.runtime.end('SIGTERM');
    writeRejectedSignatures(join(testBed.runtime.data, 'metrics.sqlite'));
    await testBed.runtime.start();
    const later = await ConsoleBrowser.start(testBed.lab, testBed.runtime.consoleUrl); // it has another port
    const overview = await later.open('/');
    await overview.locator('.health', { hasNotText: 'Signatures are rejected' }).waitFor();
    const health = overview.locator('.health.bad', { hasText: 'Signatures are rejected' });
    await health.waitFor({ timeout: EVALUATED_MS });
    expect(await overview.title()).toBe('⚠ Overview – ping-muc');
    expect(await overview.locator('[role=status]').first().textContent()).toContain('Signatures are rejected');

    await overview.locator('.card.bad a', { hasText: 'Signatures are rejected' }).click();
    const alarm = overview.locator('.alarm.bad', { hasText: 'Signatures are rejected' });
    await alarm.getByText(/are greater than 3/).waitFor();
    await alarm.locator('canvas').waitFor();
    await alarm.getByText('What to do: the runbook').click();
    await overview.locator('#signatures-are-rejected').waitFor();
    await expect.poll(() => overview.evaluate<number>('scrollY')).toBeGreaterThan(0);
    expect(later.faults).toEqual([]);
  },
  EVALUATED_MS + 60_000,
);

/** Ten rejected signatures in each of the last minutes, as if they had come while the runtime was down. */
function writeRejectedSignatures(file: string): void {
  const database = new DatabaseSync(file);
  const store = new MetricStore(database, Date.now, (message) => expect.fail(message));
  const metric = {
    namespace: METRIC_NAMESPACE,
    name: 'WebhooksUnauthorized',
    dimensions: { [METRIC_DIMENSION]: 'PingMuc' },
  };
  for (let minute = 0; minute < 30; minute += 1)
    store.record([{ ...metric, at: Date.now() - minute * 60_000, values: Array.from({ length: 10 }, () => 1) }]);
  store.close();
  database.close();
}
