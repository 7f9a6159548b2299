import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { type Lab, sleep } from '../lab.ts';
import { AS_PERSON, endWith, within } from './person.ts';

const run = promisify(execFile);
const [WIDTH, HEIGHT] = [150, 50];
/** The pause between a line and Enter: without it, the text counts as pasted. */
const TYPING_MS = 300;

/** A terminal with one program in it: a tmux of its own. */
export class Terminal {
  readonly #home: string;

  private constructor(home: string) {
    this.#home = home;
  }

  /** @param home of the person at the terminal */
  static async start(lab: Lab, home: string, command: readonly string[]): Promise<Terminal> {
    const terminal = new Terminal(home);
    await terminal.#tmux(
      '-f',
      '/dev/null',
      'new-session',
      '-d',
      '-x',
      String(WIDTH),
      '-y',
      String(HEIGHT),
      'env',
      'TERM=screen-256color',
      ...command,
    );
    // tmux is no child of this process, and its program may outlive it
    const groups = await terminal.#tmux('display-message', '-p', '#{pid} #{pane_pid}');
    for (const group of groups.trim().split(' ')) endWith(lab, Number(group));
    return terminal;
  }

  /** Types a line, and Enter. */
  async type(line: string): Promise<void> {
    await this.#tmux('send-keys', '-l', line);
    await sleep(TYPING_MS);
    await this.press('Enter');
  }

  /** @param key as tmux calls it: `Enter`, `C-n` */
  async press(key: string): Promise<void> {
    await this.#tmux('send-keys', key);
  }

  /** What the screen shows, line by line. @throws when the program has ended */
  screen(): Promise<string> {
    return this.#tmux('capture-pane', '-p');
  }

  async #tmux(...args: readonly string[]): Promise<string> {
    const [command = '', ...rest] = [...AS_PERSON, 'tmux', '-S', `${this.#home}/tmux`, ...args];
    return (await run(command, rest, { cwd: this.#home, env: within(this.#home), timeout: 10_000 })).stdout;
  }
}
