%%% Host: what all parts need about a local host, by its name: the settings, the tables, and the clock
%%%
%%% A table belongs to the host's supervisor, so it outlives every process that works with it.
-module(ping_muc_host).

-export([start/2, reload/2, stop/1, context/1, all/0, next_at/1, is_watched/2]).

-export_type([context/0]).

%% generation: names this start of the module. What sessions and streams have stored under another one is stale.
%% listening: since when rosters and lines are stored that rooms send, in monotonic ms; none if they are not. The tables
%% belong to ping_muc_joins (joins, remotes), ping_muc_streams, ping_muc_rosters and ping_muc_api (notes).
-type context() :: #{host := binary(), settings := ping_muc_settings:settings(), generation := pos_integer(),
                     clock := atomics:atomics_ref(), joins := ets:tid(), remotes := ets:tid(), streams := ets:tid(),
                     rosters := ets:tid(), notes := ets:tid(), listening := integer() | none}.

-spec start(binary(), ping_muc_settings:settings()) -> context().
start(Host, Settings) ->
    Clock = clock(Host),
    Options = [public, {read_concurrency, true}, {write_concurrency, true}],
    Context = #{host => Host, settings => Settings, clock => Clock, generation => next_at(#{clock => Clock}),
                joins => ets:new(ping_muc_joins, [ordered_set | Options]),
                remotes => ets:new(ping_muc_remotes, [set | Options]),
                streams => ets:new(ping_muc_streams, [set | Options]),
                rosters => ets:new(ping_muc_rosters, [ordered_set | Options]),
                listening => listening(Settings, none),
                notes => ets:new(ping_muc_notes, [set | Options])},
    persistent_term:put({?MODULE, Host}, Context),
    Context.

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

-spec stop(binary()) -> ok.
stop(Host) ->
    _ = persistent_term:erase({?MODULE, Host}),
    ok.

%% undefined if the module does not run for that host
-spec context(binary()) -> context() | undefined.
context(Host) ->
    persistent_term:get({?MODULE, Host}, undefined).

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
