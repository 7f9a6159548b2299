%%% Supervisor of one host's processes
-module(ping_muc_sup).

-behaviour(supervisor).

-export([start/2, stop/1, start_link/2]).
-export([init/1]).

%% If so many processes end within so many seconds, the module ends for this host, and nothing else does.
-define(MAX_RESTARTS, 10).
-define(WITHIN, 60).

-spec start(binary(), ping_muc_settings:settings()) -> ok | {error, term()}.
start(Host, Settings) ->
    Spec = #{id => name(Host), start => {?MODULE, start_link, [Host, Settings]}, restart => temporary,
             shutdown => infinity, type => supervisor},
    case supervisor:start_child(ejabberd_gen_mod_sup, Spec) of
        {ok, _} -> ok;
        {error, _} = Error -> Error
    end.

-spec stop(binary()) -> ok.
stop(Host) ->
    _ = supervisor:terminate_child(ejabberd_gen_mod_sup, name(Host)),
    _ = supervisor:delete_child(ejabberd_gen_mod_sup, name(Host)),
    ok.

-spec start_link(binary(), ping_muc_settings:settings()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host, Settings) ->
    supervisor:start_link({local, name(Host)}, ?MODULE, {Host, Settings}).

name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

init({Host, Settings}) ->
    Keeper = #{id => ping_muc_keeper, start => {ping_muc_keeper, start_link, [Host, Settings]}},
    Workers = [#{id => Module, start => {Module, start_link, [Host]}}
               || Module <- [ping_muc_sender, ping_muc_gate, ping_muc_watch, ping_muc_rosters, ping_muc_doubts,
                             ping_muc_renewals]],
    {ok, {#{strategy => one_for_one, intensity => ?MAX_RESTARTS, period => ?WITHIN}, [Keeper | Workers]}}.
