%%% Tracks: the joins of one session, and which rooms it has asked to enter (rule 1 in docs/rules.md)
%%%
%%% Plain data, in the session's own state. Moments (at) are microseconds, other times seconds.
-module(ping_muc_tracks).

-export([new/1, generation/1, is_idle/1, rooms/1, find/2, update/3]).
-export([asks/4, asked_at/2, forget_ask/2, confirmed/4, ended/2, is_entering/3]).

-export_type([track/0, join/0]).

-define(MAX_JOINS, 1000). % of one session; more are not tracked
%% Rooms that a session has asked to enter, all at once after a login, and that have not answered yet. The oldest are
%% dropped.
-define(MAX_ASKS, 1000).

%% attempt: when the session began to enter again by itself, until the room answers. pinged: when it was pinged last.
%% proof: when the stream of its latest proof began, microseconds. heard: when anything last came from the room,
%% monotonic. entered, in monotonic ms, and lines: for ping_muc_history. entry: of ping_muc_reentry.
-type join() :: #{at := pos_integer(), nick := binary(), attempt := number() | none, pinged := number(),
                  proof := non_neg_integer(), heard := integer(), entered := integer(),
                  lines := ping_muc_history:lines(), entry := ping_muc_reentry:entry() | none}.
-type track() :: #{generation := pos_integer(), rooms := #{binary() => join()},
                   asks := ping_muc_queue:queue(binary(), integer()), holds := ping_muc_holds:holds(), _ => _}.

%% Generation: of the module (ping_muc_host)
-spec new(pos_integer()) -> track().
new(Generation) ->
    #{generation => Generation, rooms => #{}, asks => ping_muc_queue:new(), holds => ping_muc_holds:new()}.

-spec generation(track()) -> pos_integer().
generation(#{generation := Generation}) ->
    Generation.

%% Whether there is nothing to remember
-spec is_idle(track()) -> boolean().
is_idle(#{rooms := Rooms, asks := Asks, holds := Holds}) ->
    map_size(Rooms) =:= 0 andalso ping_muc_queue:size(Asks) =:= 0 andalso ping_muc_holds:is_empty(Holds).

-spec rooms(track()) -> #{binary() => join()}.
rooms(#{rooms := Rooms}) ->
    Rooms.

-spec find(binary(), track()) -> join() | undefined.
find(Room, #{rooms := Rooms}) ->
    maps:get(Room, Rooms, undefined).

-spec update(binary(), join(), track()) -> track().
update(Room, Join, #{rooms := Rooms} = Track) ->
    Track#{rooms := Rooms#{Room := Join}}.

%% The session has sent its presence to an occupant's address. IsEntry: it asks to enter. Times: now, and monotonic
-spec asks(binary(), boolean(), {number(), integer()}, track()) -> track().
asks(Room, IsEntry, {Now, Monotonic}, Track) ->
    Entering = if IsEntry -> enters(Room, Now, Track); true -> Track end,
    case find(Room, Entering) of
        #{attempt := none} -> Entering; % in the room: its presence has changed
        _ -> add_ask(Room, Monotonic, Entering)
    end.

%% Into a room that it is in
enters(Room, Now, Track) ->
    case find(Room, Track) of
        undefined -> Track;
        Join -> update(Room, Join#{attempt := Now}, Track)
    end.

add_ask(Room, Monotonic, #{asks := Asks} = Track) ->
    Added = ping_muc_queue:put(Room, Monotonic, Asks),
    case ping_muc_queue:size(Added) > ?MAX_ASKS of
        true ->
            {_, _, Shorter} = ping_muc_queue:take_oldest(Added),
            Track#{asks := Shorter};
        false ->
            Track#{asks := Added}
    end.

%% When the session asked to enter; undefined if it did not, or has its answer
-spec asked_at(binary(), track()) -> integer() | undefined.
asked_at(Room, #{asks := Asks}) ->
    case ping_muc_queue:find(Room, Asks) of
        {ok, At} -> At;
        error -> undefined
    end.

-spec forget_ask(binary(), track()) -> track().
forget_ask(Room, #{asks := Asks} = Track) ->
    Track#{asks := ping_muc_queue:delete(Room, Asks)}.

%% The room has confirmed the session under a nick: a new join, or one that takes the place of an earlier one. Returns
%% the earlier one; full if the session is in too many rooms.
-spec confirmed(binary(), binary(), pos_integer(), track()) -> {join() | undefined, track()} | full.
confirmed(Room, Nick, At, Track) ->
    Heard = erlang:monotonic_time(second),
    #{rooms := Rooms} = Forgotten = forget_ask(Room, Track),
    case Rooms of
        #{Room := Join} ->
            Confirmed = begin_lines(Join),
            {Join, update(Room, Confirmed#{at := At, nick := Nick, attempt := none, heard := Heard}, Forgotten)};
        _ when map_size(Rooms) >= ?MAX_JOINS ->
            full;
        _ ->
            New = #{at => At, nick => Nick, attempt => none, pinged => 0, proof => 0, heard => Heard,
                    entered => erlang:monotonic_time(millisecond), lines => [], entry => none},
            {undefined, Forgotten#{rooms := Rooms#{Room => New}}}
    end.

%% A session that has entered by itself gets the history that its client requests.
begin_lines(#{attempt := none} = Join) -> Join;
begin_lines(Join) -> Join#{entered := erlang:monotonic_time(millisecond), lines := []}.

%% The join has ended. Returns it; undefined if there was none.
-spec ended(binary(), track()) -> {join() | undefined, track()}.
ended(Room, #{rooms := Rooms} = Track) ->
    case maps:take(Room, Rooms) of
        {Join, Left} -> {Join, Track#{rooms := Left}};
        error -> {undefined, Track}
    end.

%% Whether the session itself is entering again. The room may be about to admit it, so that a notice now would be wrong.
%% An attempt without an answer ends with its time-out. A ping that was sent after the attempt is newer than it.
-spec is_entering(join(), pos_integer(), number()) -> boolean().
is_entering(#{attempt := none}, _, _) ->
    false;
is_entering(#{attempt := Attempt, pinged := Pinged}, Timeout, Now) ->
    Now - Attempt < Timeout orelse Attempt > Pinged.
