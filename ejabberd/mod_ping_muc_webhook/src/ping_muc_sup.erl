%%% Supervisor of one host's processes
-module(ping_muc_sup).

-behaviour(supervisor).

-export([start/1, complete/1, stop/1, start_link/1]).
-export([init/1]).

%% If so many processes end within so many seconds, the module ends for this host, and nothing else does.
-define(MAX_RESTARTS, 10).
-define(WITHIN, 60).
-define(SHUTDOWN, 30000). % ms until a process is killed that has many messages before this one, and its state is lost

%% Starts what the hooks need. The arguments of a child are logged if it fails, so they are never the settings, which
%% hold the keys.
-spec start(binary()) -> ok | {error, term()}.
start(Host) ->
    Spec = #{id => name(Host), start => {?MODULE, start_link, [Host]}, restart => temporary,
             shutdown => infinity, type => supervisor},
    case supervisor:start_child(ejabberd_gen_mod_sup, Spec) of
        {ok, _} -> ok;
        {error, _} = Error -> Error
    end.

%% Starts what sends messages to sessions, which take them only if the hooks are there.
-spec complete(binary()) -> ok.
complete(Host) ->
    {ok, _} = supervisor:start_child(name(Host), worker(ping_muc_renewals, Host)),
    ok.

-spec stop(binary()) -> ok.
stop(Host) ->
    _ = supervisor:terminate_child(ejabberd_gen_mod_sup, name(Host)),
    _ = supervisor:delete_child(ejabberd_gen_mod_sup, name(Host)),
    ok.

-spec start_link(binary()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host) ->
    supervisor:start_link({local, name(Host)}, ?MODULE, Host).

name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

init(Host) ->
    Workers = [worker(Module, Host) || Module <- [ping_muc_keeper, ping_muc_sender, ping_muc_gate, ping_muc_watch,
                                                  ping_muc_rosters, ping_muc_doubts]],
    %% If the keeper ends, so do the tables, and the others must begin again.
    {ok, {#{strategy => rest_for_one, intensity => ?MAX_RESTARTS, period => ?WITHIN}, Workers}}.

worker(Module, Host) ->
    #{id => Module, start => {Module, start_link, [Host]}, shutdown => ?SHUTDOWN}.
