%%% Joins: an index of which session of a host is in which room of a remote host
%%%
%%% The truth about a join is in its session (ping_muc_sessions). This index is what other processes read.
-module(ping_muc_joins).

-export([put/5, remove/4, move/4, find/3, note/4, in_room/2, next/2, fold/3, count/1, drop_dead/2]).
-export([remotes/1, has_remote/2, note_heard/2, note_break/2, note_close/3, heard/2, breaks/2, newest_close/2]).

-export_type([join/0]).

-define(JOIN_FIELDS, #{pid => 2, at => 3, nick => 4, heard => 5, denied => 6, pinged => 7, proof => 8}).
-define(HEARD, 3).
-define(BREAKS, 4).
-define(CLOSED, 5).

%% heard: when anything last came from the room, monotonic s. denied: when the room last said that the session is not
%% in it, s. pinged: when it was pinged last, s. 0: never
-type join() :: #{room := binary(), user := binary(), pid := pid(), at := pos_integer(), nick := binary(),
                  heard := integer(), denied := number(), pinged := number(), proof := non_neg_integer()}.
-type context() :: ping_muc_host:context().

%% Joins. Each is stored as {{Remote, Room, User}, Pid, At, Nick, Heard, Denied, Pinged, Proof}.

%% The session that calls this has a join, new or changed.
-spec put(context(), binary(), binary(), pos_integer(), binary()) -> ok.
put(#{joins := Joins, remotes := Remotes}, Room, User, At, Nick) ->
    Key = key(Room, User),
    Heard = erlang:monotonic_time(second),
    case ets:insert_new(Joins, {Key, self(), At, Nick, Heard, 0, 0, 0}) of
        true ->
            _ = ets:update_counter(Remotes, element(1, Key), 1, {element(1, Key), 0, 0, 0, 0}),
            ok;
        false ->
            _ = ets:update_element(Joins, Key, [{2, self()}, {3, At}, {4, Nick}, {5, Heard}]),
            ok
    end.

%% Removes a join of a process. Returns whether it was there: a session that has replaced the one of that process may
%% have a join of its own.
-spec remove(context(), binary(), binary(), pid()) -> boolean().
remove(#{joins := Joins, remotes := Remotes}, Room, User, Pid) ->
    Key = key(Room, User),
    case ets:select_delete(Joins, [{{Key, Pid, '_', '_', '_', '_', '_', '_'}, [], [true]}]) of
        0 ->
            false;
        1 ->
            Remote = element(1, Key),
            _ = ets:update_counter(Remotes, Remote, -1),
            _ = ets:match_delete(Remotes, {Remote, 0, '_', '_', '_'}),
            true
    end.

%% A session goes on in another process (XEP-0198).
-spec move(context(), binary(), binary(), pid()) -> ok.
move(#{joins := Joins}, Room, User, Pid) ->
    _ = ets:update_element(Joins, key(Room, User), {2, Pid}),
    ok.

-spec find(context(), binary(), binary()) -> join() | undefined.
find(#{joins := Joins}, Room, User) ->
    case ets:lookup(Joins, key(Room, User)) of
        [Row] -> from_row(Row);
        [] -> undefined
    end.

-spec note(context(), binary(), binary(), #{heard | denied | pinged | proof => number()}) -> ok.
note(#{joins := Joins}, Room, User, Changes) ->
    Elements = [{maps:get(Name, ?JOIN_FIELDS), Value} || {Name, Value} <- maps:to_list(Changes)],
    _ = ets:update_element(Joins, key(Room, User), Elements),
    ok.

-spec in_room(context(), binary()) -> [join()].
in_room(#{joins := Joins}, Room) ->
    Pattern = {{remote(Room), Room, '_'}, '_', '_', '_', '_', '_', '_', '_'},
    [from_row(Row) || Row <- ets:match_object(Joins, Pattern)].

%% The key of the join after another one, and its room. first: before all
-spec next(context(), term()) -> {term(), binary()} | none.
next(#{joins := Joins}, Last) ->
    case if Last =:= first -> ets:first(Joins); true -> ets:next(Joins, Last) end of
        '$end_of_table' -> none;
        {_, Room, _} = Key -> {Key, Room}
    end.

-spec fold(fun((join(), Acc) -> Acc), Acc, context()) -> Acc.
fold(Fun, Acc, #{joins := Joins}) ->
    ets:foldl(fun(Row, Before) -> Fun(from_row(Row), Before) end, Acc, Joins).

-spec count(context()) -> non_neg_integer().
count(#{joins := Joins}) ->
    ets:info(Joins, size).

%% The process of the join has ended without saying so: it was killed. Returns whether that is so.
-spec drop_dead(context(), join()) -> boolean().
drop_dead(Context, #{room := Room, user := User, pid := Pid}) ->
    node(Pid) =:= node() andalso not is_process_alive(Pid) andalso remove(Context, Room, User, Pid).

from_row({{_, Room, User}, Pid, At, Nick, Heard, Denied, Pinged, Proof}) ->
    #{room => Room, user => User, pid => Pid, at => At, nick => Nick, heard => Heard, denied => Denied,
      pinged => Pinged, proof => Proof}.

key(Room, User) ->
    {remote(Room), Room, User}.

remote(Room) ->
    [_, Remote] = binary:split(Room, <<"@">>),
    Remote.

%% Remote hosts with joins. Each is stored as {Remote, Count, Heard, Breaks, Closed}.

-spec remotes(context()) -> non_neg_integer().
remotes(#{remotes := Remotes}) ->
    ets:info(Remotes, size).

-spec has_remote(context(), binary()) -> boolean().
has_remote(#{remotes := Remotes}, Remote) ->
    ets:member(Remotes, Remote).

%% A stanza from the host has arrived.
-spec note_heard(context(), binary()) -> ok.
note_heard(#{remotes := Remotes}, Remote) ->
    _ = ets:update_element(Remotes, Remote, {?HEARD, now_us()}),
    ok.

%% A stream from or to the host has ended. Returns false if no session has a join there.
-spec note_break(context(), binary()) -> boolean().
note_break(#{remotes := Remotes}, Remote) ->
    try ets:update_counter(Remotes, Remote, {?BREAKS, 1}) of
        _ -> true
    catch
        error:badarg -> false
    end.

-spec note_close(context(), binary(), pos_integer()) -> ok.
note_close(#{remotes := Remotes}, Remote, At) ->
    _ = ets:update_element(Remotes, Remote, {?CLOSED, At}),
    ok.

%% When a stanza from the host last arrived, in microseconds; 0: never
-spec heard(context(), binary()) -> non_neg_integer().
heard(Context, Remote) -> element_of(Context, Remote, ?HEARD).

%% How many streams from and to the host have ended
-spec breaks(context(), binary()) -> non_neg_integer().
breaks(Context, Remote) -> element_of(Context, Remote, ?BREAKS).

%% The newest close that was reported, or will be, in microseconds; 0: none is known
-spec newest_close(context(), binary()) -> non_neg_integer().
newest_close(Context, Remote) -> element_of(Context, Remote, ?CLOSED).

element_of(#{remotes := Remotes}, Remote, Position) ->
    try ets:lookup_element(Remotes, Remote, Position)
    catch error:badarg -> 0
    end.

now_us() ->
    os:system_time(microsecond).
