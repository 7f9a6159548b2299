import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { PREFIX } from '../lab/server-process.ts';
import { MODULE_PACKAGES, ensurePackages } from './debian.ts';

/**
 * Compiles the module for ejabberd against the installed ejabberd, with warnings as errors, and runs its eunit tests:
 * `npm run test:ejabberd-module`. With `-- --dialyzer` it looks for errors of types, too: in ten seconds, and in four
 * minutes the first time. With `-- --debian-13` it does this with the ejabberd of Debian 13 (scripts/prosody-13.ts).
 */
const CHECKOUT = resolve(import.meta.dirname, '..');
const MODULE = join(CHECKOUT, 'ejabberd/mod_ping_muc_webhook');
/** Where Debian has ejabberd; its libraries are among Erlang's own. */
const LIBRARIES = '/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu';
/** What is known of the types of Erlang and of ejabberd; it depends on their versions. */
const TYPES = join(CHECKOUT, 'node_modules/.cache', `ejabberd${PREFIX.length === 0 ? '' : '-debian-13'}.plt`);
const APPLICATIONS = ['erts', 'kernel', 'stdlib', 'crypto', 'ssl', 'inets', 'public_key', 'eunit'];
const TESTS_MS = 120_000;
const TYPES_MS = 900_000;

const words = process.argv.slice(2);
const wantsTypes = words.includes('--dialyzer');
const folder = mkdtempSync(join(tmpdir(), 'ping-muc-erlang-'));
try {
  process.exitCode = words.includes('--debian-13') ? inTree() : test();
} finally {
  rmSync(folder, { recursive: true });
}

function inTree(): number {
  const others = words.filter((word) => word !== '--debian-13');
  const command = [join(CHECKOUT, 'scripts/prosody-13.ts'), '--ejabberd-module', ...others];
  return spawnSync(process.execPath, command, { stdio: 'inherit' }).status ?? 1;
}

function test(): number {
  const isNeeded = (name: string): boolean => wantsTypes || name !== 'erlang-dialyzer';
  if (PREFIX.length === 0) ensurePackages(MODULE_PACKAGES.filter(isNeeded));
  return compileAndTest() && (!wantsTypes || checkTypes()) ? 0 : 1;
}

function compileAndTest(): boolean {
  const files = ['src', 'test'].flatMap((name) =>
    readdirSync(join(MODULE, name)).map((file) => join(MODULE, name, file)),
  );
  const tests = files.filter((file) => file.endsWith('_tests.erl')).map((file) => /(\w+)\.erl$/.exec(file)?.[1]);
  return evaluate(`
    Includes = [{i, filename:join([filename:dirname(code:which(M)), "..", "include"])} || M <- [ejabberd, xmpp, fxml]],
    Options = [report, debug_info, warnings_as_errors, {outdir, "${folder}"} | Includes],
    Failed = [File || File <- ${list(files)}, element(1, compile:file(File, Options)) =/= ok],
    Failed =:= [] orelse halt(1),
    [{ok, _} = application:ensure_all_started(Application) || Application <- [p1_utils, fast_xml, stringprep, crypto]],
    catch jid:start(),
    halt(case eunit:test([${tests.join(', ')}]) of ok -> 0; error -> 1 end).`);
}

function checkTypes(): boolean {
  if (!existsSync(TYPES)) {
    mkdirSync(join(TYPES, '..'), { recursive: true });
    process.stdout.write('Reading the types of Erlang and ejabberd\n');
    const known = `[code:lib_dir(A, ebin) || A <- [${APPLICATIONS.join(', ')}]]`;
    const modules = '[ejabberd, xmpp, fxml, p1_queue, yconf, stringprep, fast_tls, econf]';
    const build = `dialyzer:run([{analysis_type, plt_build}, {output_plt, "${TYPES}"}, {get_warnings, false},
      {files_rec, lists:usort(${known} ++ [filename:dirname(code:which(M)) || M <- ${modules}])}]), halt().`;
    if (!evaluate(build, TYPES_MS)) return false;
  }
  return evaluate(
    `Warnings = dialyzer:run([{init_plt, "${TYPES}"}, {files_rec, ["${folder}"]}, {warnings, [unmatched_returns]}]),
    Ours = [W || {_, {File, _}, _} = W <- Warnings, string:find(File, "ping_muc_") =/= nomatch,
                 string:find(File, "_tests") =:= nomatch],
    [io:put_chars(dialyzer:format_warning(W)) || W <- Ours],
    halt(min(1, length(Ours))).`,
    TYPES_MS,
  );
}

function list(files: readonly string[]): string {
  return `[${files.map((file) => `"${file}"`).join(', ')}]`;
}

/** Evaluates Erlang, which ends with halt. Returns whether it ended with 0. */
function evaluate(erlang: string, timeout = TESTS_MS): boolean {
  const env = {
    ...process.env,
    ERL_LIBS: LIBRARIES,
    ERL_CRASH_DUMP_SECONDS: '0',
    PING_MUC_SAMPLES: join(CHECKOUT, 'protocol/samples'),
  };
  const [command, ...args] = [...PREFIX, 'erl', '-noshell', '-pa', folder, '-eval', erlang];
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], env, timeout });
  if (error !== undefined) process.stderr.write(`${error.message}\n`); // no erl, or no end in time
  return status === 0;
}
