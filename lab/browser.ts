import { type Browser, type Page, chromium } from 'playwright-core';
import type { Lab } from './lab.ts';

const START_MS = 60_000;
/** For each step of a page, on a busy machine. */
const STEP_MS = 30_000;

export interface View {
  readonly colorScheme?: 'light' | 'dark';
  readonly width?: number;
  readonly height?: number;
}

/**
 * Debian's Chromium without a window, for pages of our own. Chromium does not run in its sandbox as root, so it runs
 * without one.
 */
export class ConsoleBrowser {
  /** What a page must not do: errors, violations of its policy, and requests to elsewhere. */
  readonly faults: string[] = [];
  readonly #browser: Browser;
  readonly #origin: string;

  private constructor(browser: Browser, origin: string) {
    this.#browser = browser;
    this.#origin = origin;
  }

  /** @param url the console's URL */
  static async start(lab: Lab, url: string): Promise<ConsoleBrowser> {
    const browser = await chromium.launch({
      executablePath: '/usr/bin/chromium',
      chromiumSandbox: false,
      timeout: START_MS,
      args: ['--disable-background-networking', '--disable-component-update'],
    });
    lab.keep({ stop: () => browser.close() });
    return new ConsoleBrowser(browser, new URL(url).origin);
  }

  /** Opens a path of the console in a new window. */
  async open(path: string, { colorScheme = 'light', width = 1280, height = 900 }: View = {}): Promise<Page> {
    const context = await this.#browser.newContext({ colorScheme, viewport: { width, height } });
    const page = await context.newPage();
    page.setDefaultTimeout(STEP_MS);
    page.on('pageerror', (error) => this.faults.push(`${page.url()}: ${error.message}`));
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.faults.push(`${page.url()}: ${message.text()}`);
    });
    page.on('request', (request) => {
      if (new URL(request.url()).origin !== this.#origin) this.faults.push(`${page.url()} asks ${request.url()}`);
    });
    await page.goto(`${this.#origin}${path}`);
    return page;
  }
}
