%%% Rosters: the occupants of rooms, so that a client whose session is brought back learns who has left meanwhile
%%%
%%% One for each room, from the presence that the room sends to any session of this host. The nicks are in a table that
%%% the sessions write to. This process does what concerns several sessions.
-module(ping_muc_rosters).

-behaviour(gen_server).

-export([start_link/1, see/4, shown/3, snapshot/3, entered/5, lost/3, given_up/3, is_larger/3, size/2,
         settings_changed/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(MAX_NICKS, 2000). % of a room, that are stored
-define(MAX_ALL_NICKS, 200000). % of all rooms
-define(SNAPSHOT_FOR, 900). % seconds for which the occupants before the first re-entry are stored
-define(SWEEP, 600). % seconds after which a room is dropped that admitted no session
-define(CALL_WITHIN, 1000). % ms for which a session stands still at most

-type context() :: ping_muc_host:context().
-type nicks() :: #{binary() => true}.

%% The table has, with times in monotonic milliseconds:
%%   {{nick, Room, Nick}, when the room last showed the occupant}
%%   {{room, Room}, number of nicks, when the first was stored, since when all are known (0: they are not), when one was
%%    not stored because there were too many (0: never)}
%%   {{spared, Room}}, while somebody has not been informed yet that an occupant is gone

-spec start_link(binary()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host) ->
    gen_server:start_link({local, name(Host)}, ?MODULE, Host, []).

%% In the sessions' processes

%% A room shows an occupant, or that one has left.
-spec see(context(), binary(), binary(), boolean()) -> ok.
see(#{settings := #{reenter := true, reenter_occupants := true}, rosters := Table} = Context, Room, Nick, true) ->
    Key = {nick, Room, Nick},
    case ets:insert_new(Table, {Key, now_ms()}) of
        true ->
            Count = ets:update_counter(Table, {room, Room}, {2, 1}, {{room, Room}, 0, now_ms(), 0, 0}),
            case Count > ?MAX_NICKS orelse ets:info(Table, size) > ?MAX_ALL_NICKS of
                true ->
                    forget(Key, Room, Table),
                    _ = ets:update_element(Table, {room, Room}, [{4, 0}, {5, now_ms()}]),
                    ok;
                false ->
                    is_back(Context, Room, Nick)
            end;
        false ->
            _ = ets:update_element(Table, Key, {2, now_ms()}),
            is_back(Context, Room, Nick)
    end;
see(#{rosters := Table}, Room, Nick, false) ->
    forget({nick, Room, Nick}, Room, Table);
see(_, _, _, _) ->
    ok.

is_back(#{rosters := Table} = Context, Room, Nick) ->
    case ets:member(Table, {spared, Room}) of
        true -> cast(Context, {seen, Room, Nick});
        false -> ok
    end.

forget(Key, Room, Table) ->
    case ets:take(Table, Key) of
        [_] -> _ = ets:update_counter(Table, {room, Room}, {2, -1}, {{room, Room}, 1, now_ms(), 0, 0}), ok;
        [] -> ok
    end.

%% A room has admitted a session that asked at that time, in monotonic ms, and so has shown it all occupants.
-spec shown(context(), binary(), integer()) -> ok.
shown(#{rosters := Table, listening := Listening}, Room, Asked) when is_integer(Listening), Asked >= Listening ->
    case ets:lookup(Table, {room, Room}) of
        [{_, _, _, _, Refused}] when Refused =:= 0; Refused < Asked ->
            _ = ets:update_element(Table, {room, Room}, {4, Asked}),
            ok;
        _ ->
            ok
    end;
shown(_, _, _) ->
    ok.

%% Whether a room has more occupants than the limit; unknown if that is not known
-spec is_larger(context(), binary(), pos_integer()) -> boolean() | unknown.
is_larger(#{rosters := Table} = Context, Room, Limit) ->
    Local = length(ping_muc_joins:in_room(Context, Room)),
    case ets:lookup(Table, {room, Room}) of
        [{_, Count, _, _, _}] when Count > Limit -> true;
        _ when Local > Limit -> true;
        [{_, _, _, Whole, _}] when Whole =/= 0 -> false;
        _ -> unknown
    end.

%% How many occupants a room has, as far as is known
-spec size(context(), binary()) -> non_neg_integer().
size(#{rosters := Table} = Context, Room) ->
    Count = case ets:lookup(Table, {room, Room}) of [Row] -> element(2, Row); [] -> 0 end,
    max(Count, length(ping_muc_joins:in_room(Context, Room))).

%% The occupants that the client of a session knows that is about to be brought back; unknown if that is not known. At:
%% of its join
-spec snapshot(context(), binary(), pos_integer()) -> nicks() | unknown.
snapshot(#{settings := #{reenter_occupants := true}, host := Host}, Room, At) ->
    call(Host, {snapshot, Room, At});
snapshot(_, _, _) ->
    unknown.

%% The room has shown all occupants to a session that was brought back. Known: the snapshot; Announced: the occupants
%% that it has shown. Returns those of whose end the client must be informed.
-spec entered(context(), binary(), {binary(), binary()}, nicks() | unknown, nicks()) -> [binary()].
entered(#{settings := #{reenter_occupants := true}, host := Host}, Room, {User, Nick}, Known, Announced) ->
    call(Host, {entered, Room, User, Nick, Known, Announced});
entered(_, _, {_, Nick}, Known, Announced) ->
    missing(Nick, Known, Announced).

missing(_, unknown, _) -> [];
missing(Own, Known, Announced) -> maps:keys(maps:remove(Own, maps:without(maps:keys(Announced), Known))).

%% A session is no longer in the room, where it had that nick.
-spec lost(context(), binary(), binary()) -> ok.
lost(Context, Room, Nick) -> cast(Context, {lost, Room, Nick}).

%% A session has another nick now.
-spec given_up(context(), binary(), binary()) -> ok.
given_up(Context, Room, Nick) -> cast(Context, {given_up, Room, Nick}).

%% If occupants are not stored any more, those that are stored are dropped.
-spec settings_changed(context()) -> ok.
settings_changed(#{settings := #{reenter := true, reenter_occupants := true}}) -> ok;
settings_changed(#{host := Host}) -> gen_server:cast(name(Host), drop_all).

%% A session's join has been recorded by then, so a crash here would lose it.
call(Host, Message) ->
    try gen_server:call(name(Host), Message, ?CALL_WITHIN)
    catch exit:_ -> unknown_of(Message)
    end.

cast(#{settings := #{reenter := true}, host := Host}, Message) -> gen_server:cast(name(Host), Message);
cast(_, _) -> ok.

name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%% The process. Its state:
%%   before  Room → {at, when, nicks}: the occupants that clients knew when the room was first entered again
%%   epochs  Room → since when what the room shows replaces what it has shown before. It ends when it has shown all to a
%%           session.
%%   spared  Room → Nick → full JIDs that have not been informed yet that it is gone

init(Host) ->
    _ = erlang:send_after(?SWEEP * 1000, self(), sweep),
    process_flag(trap_exit, true),
    {ok, ping_muc_handover:take(Host, rosters, #{host => Host, before => #{}, epochs => #{}, spared => #{}})}.

terminate(Reason, #{host := Host} = State) ->
    ping_muc_handover:save(Reason, Host, rosters, State).

handle_call(Message, _From, #{host := Host} = State) ->
    {Reply, Next} = ping_muc_log:safely(roster, fun() -> answer(Message, ping_muc_host:context(Host), State) end,
                                        {unknown_of(Message), State}),
    {reply, Reply, Next}.

%% Then no occupant is reported as gone.
unknown_of({snapshot, _, _}) -> unknown;
unknown_of(_) -> [].

handle_cast(Message, State) ->
    {noreply, handle(Message, State)}.

handle_info(Message, State) ->
    {noreply, handle(Message, State)}.

handle(Message, #{host := Host} = State) ->
    ping_muc_host:safely(Host, roster, fun(Context) -> note(Message, Context, State) end, State).

answer({snapshot, Room, At}, #{rosters := Table} = Context, #{before := Before, epochs := Epochs} = State) ->
    Now = now_ms(),
    Old = case Before of
              #{Room := {_, Made, _}} when Now - Made >= ?SNAPSHOT_FOR * 1000 -> none;
              #{Room := Recent} -> Recent;
              _ -> none
          end,
    case {ets:member(Table, {room, Room}), Old} of
        {false, _} ->
            {unknown, State};
        {true, {BeforeAt, _, Nicks}} when At =< BeforeAt ->
            {Nicks, State};
        {true, _} ->
            Earlier = case Old of none -> #{}; {_, _, Some} -> Some end,
            Nicks = maps:merge(nicks(Room, 0, Table), Earlier),
            {Nicks, State#{before := Before#{Room => {ping_muc_host:next_at(Context), Now, Nicks}},
                           epochs := Epochs#{Room => Now}}}
    end;
answer({entered, Room, User, Nick, Known, Announced}, #{rosters := Table} = Context, #{epochs := Epochs} = State) ->
    _ = case Epochs of
            #{Room := Epoch} ->
                Shown = (maps:merge(nicks(Room, Epoch, Table), Announced))#{Nick => true},
                [forget({nick, Room, Gone}, Room, Table) || Gone <- maps:keys(nicks(Room, 0, Table)),
                                                            not is_map_key(Gone, Shown)];
            _ ->
                ok
        end,
    Left = missing(Nick, Known, Announced),
    Ours = local_nicks(Room, Context),
    {Spared, Gone} = lists:partition(fun(One) -> is_map_key(One, Ours) end, Left),
    _ = [ets:insert(Table, {{spared, Room}}) || Spared =/= []],
    {Gone, lists:foldl(fun(One, Before) -> spare(Room, One, User, Before) end,
                       State#{epochs := maps:remove(Room, Epochs)}, Spared)}.

%% A user of this host who is out, too, and may be about to come back
spare(Room, Nick, User, #{spared := Spared} = State) ->
    InRoom = maps:get(Room, Spared, #{}),
    State#{spared := Spared#{Room => InRoom#{Nick => lists:usort([User | maps:get(Nick, InRoom, [])])}}}.

note({seen, Room, Nick}, _, #{spared := Spared} = State) ->
    case Spared of
        #{Room := #{Nick := _} = InRoom} -> State#{spared := Spared#{Room := maps:remove(Nick, InRoom)}};
        _ -> State
    end;
note({given_up, Room, Nick}, Context, State) ->
    give_up(Room, Nick, Context, State);
note({lost, Room, Nick}, Context, State) ->
    Given = give_up(Room, Nick, Context, State),
    case ping_muc_joins:in_room(Context, Room) of
        [] -> drop(Room, Context, Given);
        _ -> Given
    end;
note(drop_all, #{rosters := Table} = Context, State) ->
    lists:foldl(fun(Room, Left) -> drop(Room, Context, Left) end, State,
                [Room || [Room] <- ets:match(Table, {{room, '$1'}, '_', '_', '_', '_'})]);
note(sweep, #{rosters := Table} = Context, #{before := Before} = State) ->
    _ = erlang:send_after(?SWEEP * 1000, self(), sweep),
    Now = now_ms(),
    Recent = maps:filter(fun(_, {_, Made, _}) -> Now - Made < ?SNAPSHOT_FOR * 1000 end, Before),
    Unused = [Room || [Room, Made] <- ets:match(Table, {{room, '$1'}, '_', '$2', '_', '_'}),
                      Now - Made >= ?SWEEP * 1000, ping_muc_joins:in_room(Context, Room) =:= []],
    lists:foldl(fun(Room, Left) -> drop(Room, Context, Left) end, State#{before := Recent}, Unused);
note(_, _, State) ->
    State.

%% If no session has that nick any more, clients that came back while its session was out are informed now.
give_up(Room, Nick, Context, #{spared := Spared} = State) ->
    case Spared of
        #{Room := #{Nick := Users} = InRoom} ->
            case is_map_key(Nick, local_nicks(Room, Context)) of
                true ->
                    State;
                false ->
                    _ = [Pid ! {ping_muc, {gone, Room, Nick}}
                         || #{user := User, pid := Pid} <- ping_muc_joins:in_room(Context, Room),
                            lists:member(User, Users)],
                    State#{spared := Spared#{Room := maps:remove(Nick, InRoom)}}
            end;
        _ ->
            State
    end.

drop(Room, #{rosters := Table}, #{before := Before, epochs := Epochs, spared := Spared} = State) ->
    true = ets:match_delete(Table, {{nick, Room, '_'}, '_'}),
    true = ets:delete(Table, {room, Room}),
    true = ets:delete(Table, {spared, Room}),
    State#{before := maps:remove(Room, Before), epochs := maps:remove(Room, Epochs),
           spared := maps:remove(Room, Spared)}.

%% The nicks that the room has shown since then
nicks(Room, Since, Table) ->
    Rows = ets:match(Table, {{nick, Room, '$1'}, '$2'}),
    maps:from_list([{Nick, true} || [Nick, At] <- Rows, Since =:= 0 orelse At >= Since]).

local_nicks(Room, Context) ->
    maps:from_list([{Nick, true} || #{nick := Nick} <- ping_muc_joins:in_room(Context, Room)]).

now_ms() ->
    erlang:monotonic_time(millisecond).
