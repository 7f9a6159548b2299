import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { PREFIX } from './server-process.ts';

const run = promisify(execFile);

/** The port of the interpreter. */
export const SHELL_PORT = 5281;
export const SHELL_TIMEOUT_MS = 15_000;
/** Where Debian has ejabberd. */
export const LIBRARIES = '/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu';
const COMPILE_TIMEOUT_MS = 120_000;

/** A string as Erlang. */
export const binary = (text: string): string => `<<${[...Buffer.from(text)].join(',')}>>`;

/** Where the headers of ejabberd and its libraries are: Debian's names of the folders differ from others'. */
const INCLUDES =
  '[{i, filename:join([filename:dirname(code:which(Module)), "..", "include"])} || Module <- [ejabberd, xmpp]]';

/** A function that compiles a file in ejabberd's own process, and loads it. */
export const COMPILE_AND_LOAD = `fun(File) ->
  {ok, Name, Beam} = compile:file(File, [binary | ${INCLUDES}]),
  {module, Name} = code:load_binary(Name, File, Beam), ok
end`;

/** Compiles files into a folder. @throws with the compiler's messages */
export async function compile(files: readonly string[], folder: string): Promise<void> {
  const options = `[report, debug_info, {outdir, "${folder}"} | ${INCLUDES}]`;
  const each = files.map((file) => `"${file}"`).join(', ');
  const code = `Results = [compile:file(File, ${options}) || File <- [${each}]], halt(length([failed || error <- Results])).`;
  const [program = '', ...args] = [...PREFIX, ...['erl', '-noshell', '-eval', code]];
  const execution = { timeout: COMPILE_TIMEOUT_MS, env: { ...process.env, ERL_LIBS: LIBRARIES } };
  await run(program, args, execution).catch((error: unknown) => {
    throw new Error(`the module could not be compiled: ${(error as { readonly stdout?: string }).stdout}`, {
      cause: error,
    });
  });
}

/** An interpreter of Erlang on loopback: each connection carries one expression, and its value. */
export const shell = (host: string): string => `
Ip = {${host.replaceAll('.', ',')}},
Evaluate = fun(Text) ->
  {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Text)),
  {ok, Expressions} = erl_parse:parse_exprs(Tokens),
  {value, Value, _} = erl_eval:exprs(Expressions, []),
  case Value of Binary when is_binary(Binary) -> Binary; Term -> io_lib:format("~0tp", [Term]) end
end,
Serve = fun(Socket) ->
  {ok, Text} = gen_tcp:recv(Socket, 0, ${SHELL_TIMEOUT_MS}),
  Answer = try ["+", Evaluate(Text)] catch Class:Reason -> io_lib:format("-~0tp:~0tp", [Class, Reason]) end,
  gen_tcp:send(Socket, unicode:characters_to_binary(Answer)),
  gen_tcp:close(Socket)
end,
spawn(fun() ->
  {ok, Listener} = gen_tcp:listen(${SHELL_PORT}, [binary, {ip, Ip}, {packet, 4}, {active, false}, {reuseaddr, true}]),
  Accept = fun Next() -> {ok, Socket} = gen_tcp:accept(Listener), spawn(fun() -> Serve(Socket) end), Next() end,
  Accept()
end).`;
