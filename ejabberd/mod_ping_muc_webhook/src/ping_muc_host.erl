%%% Host: what all parts need about a local host, by its name: the settings, the tables, and the clock
%%%
%%% The tables belong to ping_muc_keeper, so they outlive every process that works with them.
-module(ping_muc_host).

-export([start/2, reload/2, stop/1, context/1, safely/4, all/0, next_at/1, is_watched/2]).

-export_type([context/0]).

-define(TABLES, [{joins, ordered_set}, {remotes, set}, {streams, set}, {rosters, ordered_set}, {notes, set}]).

%% generation: names this start of the module. What sessions and streams have stored under another one is stale.
%% listening: since when rosters and lines are stored that rooms send, in monotonic ms; none if they are not. The tables
%% belong to ping_muc_joins (joins, remotes), ping_muc_streams, ping_muc_rosters and ping_muc_api (notes).
-type context() :: #{host := binary(), settings := ping_muc_settings:settings(), generation := pos_integer(),
                     clock := atomics:atomics_ref(), joins := ets:tid(), remotes := ets:tid(), streams := ets:tid(),
                     rosters := ets:tid(), notes := ets:tid(), listening := integer() | none}.

-spec start(binary(), ping_muc_settings:settings()) -> context().
start(Host, Settings) ->
    Clock = clock(Host),
    {Generation, Rows} = ping_muc_handover:take(Host, tables, {next_at(#{clock => Clock}), #{}}),
    Tables = maps:from_list([{Name, table(Name, Kind, maps:get(Name, Rows, []))} || {Name, Kind} <- ?TABLES]),
    Context = Tables#{host => Host, settings => Settings, clock => Clock, generation => Generation,
                      listening => listening(Settings, none)},
    persistent_term:put({?MODULE, Host}, Context),
    Context.

table(Name, Kind, Rows) ->
    Table = ets:new(Name, [Kind, public, {read_concurrency, true}, {write_concurrency, true}]),
    true = ets:insert(Table, Rows),
    Table.

-spec reload(binary(), ping_muc_settings:settings()) -> ok.
reload(Host, Settings) ->
    case context(Host) of
        undefined -> ok;
        #{listening := Before} = Context ->
            persistent_term:put({?MODULE, Host}, Context#{settings := Settings,
                                                          listening := listening(Settings, Before)})
    end.

listening(#{reenter := false}, _) -> none;
listening(_, none) -> erlang:monotonic_time(millisecond);
listening(_, Since) -> Since.

%% The other processes of the host have ended. What is in the tables is handed over.
-spec stop(binary()) -> ok.
stop(Host) ->
    case context(Host) of
        undefined ->
            ok;
        #{generation := Generation} = Context ->
            _ = persistent_term:erase({?MODULE, Host}),
            Rows = maps:from_list([{Name, ets:tab2list(maps:get(Name, Context))} || {Name, _} <- ?TABLES]),
            ping_muc_handover:save(shutdown, Host, tables, {Generation, Rows})
    end.

%% undefined if the module does not run for that host
-spec context(binary()) -> context() | undefined.
context(Host) ->
    persistent_term:get({?MODULE, Host}, undefined).

%% Runs Fun with what is known about a host. Otherwise, if the module does not run for it (it may be being stopped), and
%% if Fun crashes, which must not harm the process that calls this.
-spec safely(binary(), atom(), fun((context()) -> Result), Result) -> Result.
safely(Host, What, Fun, Otherwise) ->
    case context(Host) of
        undefined -> Otherwise;
        Context -> ping_muc_log:safely(What, fun() -> Fun(Context) end, Otherwise)
    end.

%% The hosts for which the module runs
-spec all() -> [binary()].
all() ->
    [Host || Host <- lists:sort(ejabberd_option:hosts()), context(Host) =/= undefined].

%% Microseconds. Strictly increasing, because moments order events and name joins.
-spec next_at(#{clock := atomics:atomics_ref(), _ => _}) -> pos_integer().
next_at(#{clock := Clock}) ->
    advance(Clock, atomics:get(Clock, 1)).

advance(Clock, Last) ->
    Next = max(os:system_time(microsecond), Last + 1),
    case atomics:compare_exchange(Clock, 1, Last, Next) of
        ok -> Next;
        Actual -> advance(Clock, Actual)
    end.

%% It outlives the module: moments increase as long as the server runs.
clock(Host) ->
    Key = {?MODULE, clock, Host},
    case persistent_term:get(Key, undefined) of
        undefined ->
            Clock = atomics:new(1, [{signed, false}]),
            persistent_term:put(Key, Clock),
            Clock;
        Clock ->
            Clock
    end.

%% Whether rooms on a host are watched: it is neither local nor excluded.
-spec is_watched(context(), binary()) -> boolean().
is_watched(#{settings := #{exclude := Exclude}}, Remote) ->
    not is_map_key(Remote, Exclude) andalso not ejabberd_router:is_my_route(Remote).
