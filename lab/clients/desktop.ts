import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { type Lab, sleep } from '../lab.ts';
import { AS_PERSON, runAsPerson, within } from './person.ts';

const run = promisify(execFile);
const [WIDTH, HEIGHT] = [960, 600];
const TITLE_HEIGHT = 24;
/** The pause between a line and Enter. */
const TYPING_MS = 300;

/** A virtual screen (Xvfb), with a window manager. */
export class Desktop {
  /** Variables for the programs on it. */
  readonly environment: NodeJS.ProcessEnv;
  readonly #home: string;

  private constructor(home: string, display: string) {
    this.#home = home;
    this.environment = {
      ...within(home),
      DISPLAY: display,
      GDK_BACKEND: 'x11',
      NO_AT_BRIDGE: '1',
      LIBGL_ALWAYS_SOFTWARE: '1',
      GSETTINGS_BACKEND: 'memory',
    };
  }

  static async open(lab: Lab, home: string): Promise<Desktop> {
    const command = ['Xvfb', '-displayfd', '1', '-screen', '0', `${WIDTH}x${HEIGHT}x24`, '-nolisten', 'tcp'];
    const server = runAsPerson(lab, command, { cwd: home, env: within(home), stdio: ['ignore', 'pipe', 'ignore'] });
    if (server.stdout === null) throw new Error('Xvfb has no output');
    const [number] = (await once(server.stdout, 'data')) as [Buffer];
    const desktop = new Desktop(home, `:${number.toString().trim()}`);
    runAsPerson(lab, ['openbox'], { cwd: home, env: desktop.environment, stdio: 'ignore' });
    return desktop;
  }

  /** Fills the screen with the only window of a class. */
  async maximize(windowClass: string): Promise<void> {
    await this.#run(
      'xdotool',
      'search',
      '--sync',
      '--onlyvisible',
      '--class',
      windowClass,
      'windowactivate',
      '--sync',
      'windowsize',
      '--sync',
      String(WIDTH),
      String(HEIGHT - TITLE_HEIGHT),
      'windowmove',
      '0',
      '0',
      'mousemove',
      String(WIDTH),
      String(HEIGHT),
    );
  }

  /** Types a line into the window that has the focus, and Enter. */
  async type(line: string): Promise<void> {
    await this.#run('xdotool', 'type', '--delay', '20', line);
    await sleep(TYPING_MS);
    await this.press('Return');
  }

  async press(key: string): Promise<void> {
    await this.#run('xdotool', 'key', key);
  }

  async click(x: number, y: number): Promise<void> {
    await this.#run('xdotool', 'mousemove', String(x), String(y), 'click', '1');
  }

  async picture(path: string): Promise<void> {
    const { stdout } = await run('import', ['-window', 'root', '+dither', '-colors', '64', 'png:-'], {
      env: this.environment,
      encoding: 'buffer',
      maxBuffer: 10_000_000,
      timeout: 20_000,
    });
    await writeFile(path, stdout);
  }

  async #run(command: string, ...args: readonly string[]): Promise<void> {
    const [program = '', ...rest] = [...AS_PERSON, command, ...args];
    await run(program, rest, { cwd: this.#home, env: this.environment, timeout: 20_000 });
  }
}
