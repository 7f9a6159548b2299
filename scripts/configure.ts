import { existsSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { ConfigError, checkSetting, readConfig } from '../infra/config.ts';
import { SETTINGS_FILE, readSettingsFile, settingsPath } from '../infra/settings-file.ts';
import { SETTINGS, type Setting } from '../infra/settings.ts';

/** Asks for the settings of a deployment, and writes them into a file: `npm run configure`. */
const USAGE = `Usage: npm run configure [-- --all]

Asks for the settings that most deployments need, with --all for every setting, and writes them into ${SETTINGS_FILE}
(or the file that PING_MUC_CONFIG names), which every cdk command reads. You can also edit that file by hand.
`;
const COMMON: readonly Setting[] = ['serverApiUrl', 'xmppHosts', 'alarmEmail', 'checkConcurrency'];

type Given = Readonly<Record<string, unknown>>;

async function configure(): Promise<void> {
  const { values } = parseArgs({
    options: {
      all: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  const file = settingsPath();
  let given: Given = existsSync(file) ? readSettingsFile(file) : {};
  process.stdout.write('Enter keeps the value in brackets. A hyphen (-) removes it.\n');
  const questions = new Questions();
  const asked = values.all ? (Object.keys(SETTINGS) as Setting[]) : COMMON;
  const ask = async (setting: Setting): Promise<void> => {
    given = { ...given, [setting]: await questions.ask(setting, given[setting]) };
  };
  for (const setting of asked) await ask(setting);
  for (let wrong = wrongSetting(given); wrong !== undefined; wrong = wrongSetting(given)) {
    process.stdout.write(`\n${wrong.problem}\n`);
    await ask(wrong.setting);
  }
  questions.close();
  // at once or not at all: a deployment may read it meanwhile
  await writeFile(`${file}.new`, `${JSON.stringify(given, undefined, 2)}\n`);
  await rename(`${file}.new`, file);
  process.stdout.write(`\nWritten to ${basename(file)}. Next: npx cdk deploy.\n`);
}

/** The first setting that does not fit the others. Undefined: all is well. @throws ConfigError: no setting is named */
function wrongSetting(given: Given): { readonly setting: Setting; readonly problem: string } | undefined {
  try {
    readConfig(given);
    return undefined;
  } catch (error) {
    if (!(error instanceof ConfigError) || error.setting === undefined) throw error;
    return { setting: error.setting, problem: error.message };
  }
}

/** Questions on the terminal. */
class Questions {
  readonly #terminal = createInterface({ input: process.stdin });
  readonly #lines = this.#terminal[Symbol.asyncIterator]();

  /** Asks until the answer is valid. @returns undefined: not set. @throws if the input ends */
  async ask(setting: Setting, current: unknown): Promise<unknown> {
    const { meaning, example } = SETTINGS[setting];
    process.stdout.write(`\n${meaning} For example: ${example}\n`);
    for (;;) {
      process.stdout.write(`${setting} [${show(current)}]: `);
      const { value: line, done } = await this.#lines.next();
      if (done === true) throw new ConfigError('The input ended before the last question. Nothing was written.');
      const answer = line.trim();
      const value = answer === '' ? current : answer === '-' ? undefined : answer;
      try {
        checkSetting(setting, value);
        return value;
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        process.stdout.write(`${error.message}\n`);
      }
    }
  }

  close(): void {
    this.#terminal.close();
  }
}

function show(value: unknown): string {
  if (value === undefined) return 'not set';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

configure().catch((error: unknown) => {
  process.stderr.write(`\n${error instanceof ConfigError ? error.message : String(error)}\n`);
  process.exit(1);
});
