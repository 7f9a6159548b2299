import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Lab, until } from '../lab.ts';
import { makeHome, runAsPerson, within } from './person.ts';

const [WIDTH, HEIGHT] = [960, 600];
const START_MS = 30_000;
const ANSWER_MS = 15_000;

/** An answer of the browser, or an event. */
interface DevToolsMessage {
  readonly id?: number;
  readonly method?: string;
  readonly params?: unknown;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

/** A page in a Chromium without a window, driven by the DevTools protocol. */
export class Page {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, (message: DevToolsMessage) => void>();
  #last = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener('message', ({ data }) => {
      const message = JSON.parse(String(data)) as DevToolsMessage;
      if (message.id !== undefined) this.#waiting.get(message.id)?.(message);
    });
  }

  static async open(lab: Lab, url: string): Promise<Page> {
    const home = await makeHome(lab);
    const profile = join(home, 'profile');
    const flags = [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
    ];
    const command = [
      'chromium',
      ...flags,
      `--user-data-dir=${profile}`,
      '--remote-debugging-port=0',
      `--window-size=${WIDTH},${HEIGHT}`,
      'about:blank',
    ];
    runAsPerson(lab, command, { cwd: home, env: within(home), stdio: 'ignore' });
    const pages = async (): Promise<readonly { type: string; webSocketDebuggerUrl: string }[]> => {
      const [port] = (await readFile(join(profile, 'DevToolsActivePort'), 'utf8')).split('\n');
      return (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as [];
    };
    const { webSocketDebuggerUrl } = await until(
      'Chromium has a page',
      async () => (await pages().catch(() => [])).find(({ type }) => type === 'page'),
      START_MS,
    );
    const socket = new WebSocket(webSocketDebuggerUrl);
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve);
      socket.addEventListener('error', () => reject(new Error('Chromium does not accept a connection')));
    });
    const page = new Page(socket);
    await page.#ask('Emulation.setDeviceMetricsOverride', {
      width: WIDTH,
      height: HEIGHT,
      deviceScaleFactor: 1,
      mobile: false,
    });
    await page.#ask('Page.navigate', { url });
    return page;
  }

  /** Evaluates an expression in the page and returns its value, as JSON. */
  async run<Value>(expression: string): Promise<Value> {
    const { result, exceptionDetails } = (await this.#ask('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    })) as {
      result: { value: Value };
      exceptionDetails?: { text: string; exception?: { description?: string } };
    };
    if (exceptionDetails !== undefined)
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Types a line where the cursor is, and Enter. */
  async type(line: string): Promise<void> {
    await this.#ask('Input.insertText', { text: line });
    const key = { key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' };
    await this.#ask('Input.dispatchKeyEvent', { type: 'keyDown', ...key });
    await this.#ask('Input.dispatchKeyEvent', { type: 'keyUp', ...key });
  }

  async picture(path: string): Promise<void> {
    const { data } = (await this.#ask('Page.captureScreenshot', { format: 'png' })) as { data: string };
    await writeFile(path, Buffer.from(data, 'base64'));
  }

  async #ask(method: string, params: object): Promise<unknown> {
    this.#last += 1;
    const id = this.#last;
    const message = await new Promise<DevToolsMessage>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`Chromium did not answer ${method}`)), ANSWER_MS);
      this.#waiting.set(id, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      this.#socket.send(JSON.stringify({ id, method, params }));
    });
    this.#waiting.delete(id);
    if (message.error !== undefined) throw new Error(`${method}: ${message.error.message}`);
    return message.result;
  }
}
