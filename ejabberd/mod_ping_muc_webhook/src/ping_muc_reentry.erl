%%% Re-entry: the server enters a room again on behalf of a session that is out of it. The client sees only what the
%%% room then sends. Rule 10 in docs/rules.md.
%%%
%%% One at a time for each join, in the join itself, so that it goes on with the session in another process (XEP-0198).
%%% Times are monotonic milliseconds.
-module(ping_muc_reentry).

-export([enter/5, is_under_way/1, is_awaited/1, recover/4, continue/3, copied/3, withdraw/1, ended/5]).
-export([takes_error/3, takes_new_room/4, announced/2, entered/4, takes_message/4]).

-export_type([entry/0, outcome/0]).

-include("logger.hrl").
-include("xmpp.hrl").

-define(MAX_ANNOUNCED, 2000). % occupants whom a room shows to an entering session; as many as rosters store
-define(BESIDE_PRESENCE, 50). % stanzas that a room sends to an entering session beside the occupants: its history
-define(HISTORY_WITHIN, 2000). % ms from the self-presence for which the answer waits for the history
%% ms after the time-out in which its timer is awaited: it is lost if it fires while the module is stopped
-define(EXPIRE_WITHIN, 5000).
-define(FILTER_WITHIN, 30000). % ms in which the history may arrive, if no subject ends it

-type state() :: ejabberd_c2s:state().
-type context() :: ping_muc_host:context().
-type join() :: ping_muc_tracks:join().
-type waiter() :: {pid(), reference(), binary()} | none.
%% phase: asked, or in when the room has admitted the session. earlier: the id of one before it, which the room may
%% still answer. known: the newest line that the session had. snapshot: the occupants that the client knows. lines: how
%% many lines have come. overdue: the time is over, but the room may still answer. withdrawn: the user has entered by
%% itself.
-type entry() :: #{phase := asked | in, id := binary(), occupant := binary(), begun := integer(),
                   deadline := integer(), earlier := binary() | none, known := binary() | none,
                   snapshot := #{binary() => true} | unknown, announced := #{binary() => true},
                   lines := non_neg_integer(), came_back := boolean(), overdue := boolean(),
                   withdrawn := boolean(), finished := boolean(), filter_until := integer(), waiter := waiter()}.
%% entered: whether messages are missing. error: the room's, or a bounce of this server. new: the room was created.
-type outcome() :: {entered, boolean()} | {error, presence()} | new | rejoining | conflict | gone | expired.

%% Enters a room again. Occupants: their number, if the room was asked for it, or 0. The waiter gets {Tag, Id, {reentry,
%% outcome()}}, once. Returns rejoining if one is under way already; full if the session hibernates, and has no space.
-spec enter({binary(), non_neg_integer()}, join(), {waiter(), pos_integer()}, state(), context()) ->
    {ok, state()} | rejoining | full.
enter({Room, Occupants}, #{entry := Earlier} = Join, {Waiter, Timeout}, State, Context) ->
    case is_under_way(Join) of
        true ->
            %% Since the module was stopped, nobody may wait for it.
            case has_waiter(Earlier) orelse map_get(withdrawn, Earlier) of
                true ->
                    rejoining;
                false ->
                    Awaited = Join#{entry := Earlier#{waiter := Waiter}},
                    {ok, ping_muc_session:update(Room, Awaited, State, Context)}
            end;
        false ->
            case has_space(Room, Occupants, State, Context) of
                true -> {ok, send(Room, Join, Waiter, Timeout, State, Context)};
                false -> full
            end
    end.

send(Room, #{at := At, nick := Nick, entry := Earlier, lines := Lines, entered := Entered} = Join, Waiter, Timeout,
     #{jid := JID} = State, #{listening := Listening} = Context) ->
    Id = new_id(),
    Occupant = <<Room/binary, $/, Nick/binary>>,
    Entry = #{phase => asked, id => Id, occupant => Occupant, begun => now_ms(), deadline => now_ms() + Timeout,
              earlier => case Earlier of #{phase := asked, id := Before} -> Before; _ -> none end,
              known => ping_muc_history:newest(Lines), snapshot => ping_muc_rosters:snapshot(Context, Room, At),
              announced => #{}, lines => 0, came_back => false, overdue => false, withdrawn => false,
              finished => false, filter_until => 0, waiter => Waiter},
    timer(Timeout, expire, Room, Entry),
    From = max(Entered, case Listening of none -> Entered; _ -> Listening end),
    Seconds = ping_muc_history:seconds(Lines, From / 1000, now_ms() / 1000),
    Last = maps:get(pres_last, State, #presence{}),
    Presence = ping_muc_stanzas:entry(Last, {Id, JID, jid:decode(Occupant)}, Seconds),
    ping_muc_session:send_as(Presence, ping_muc_session:update(Room, Join#{entry := Entry}, State, Context)).

new_id() ->
    binary:encode_hex(crypto:strong_rand_bytes(12)).

timer(Ms, What, Room, #{id := Id}) ->
    _ = erlang:send_after(max(0, Ms), self(), {ping_muc, {reentry, What, Room, Id}}),
    ok.

%% Stanzas for a session that hibernates wait in the queue of mod_stream_mgmt. If it overflows, the session cannot
%% resume, and what waits is lost. Returns whether half of the queue holds what waits there, and what this entry and
%% those under way will bring. The other half is for whatever else arrives until the client is back.
has_space(Room, Occupants, #{mgmt_state := pending, mgmt_max_queue := Max, mgmt_queue := Queue} = State, Context)
  when Max =/= infinity ->
    Rooms = ping_muc_tracks:rooms(ping_muc_session:track(State, Context)),
    Others = [ping_muc_rosters:size(Context, Other) + ?BESIDE_PRESENCE
              || {Other, Join} <- maps:to_list(Rooms), is_awaited(Join)],
    Expected = p1_queue:len(Queue) + max(ping_muc_rosters:size(Context, Room), Occupants) + ?BESIDE_PRESENCE
        + lists:sum(Others),
    is_integer(Max) andalso Expected =< Max / 2;
has_space(_, _, _, _) ->
    true.

%% Whether the join is being entered again. Nothing else is done about it meanwhile.
-spec is_under_way(join()) -> boolean().
is_under_way(#{entry := #{phase := asked, overdue := false, deadline := Deadline} = Entry}) ->
    now_ms() < Deadline + case has_waiter(Entry) of true -> ?EXPIRE_WITHIN; false -> 0 end;
is_under_way(_) ->
    false.

has_waiter(#{waiter := none}) -> false;
has_waiter(#{waiter := {Pid, _, _}}) -> node(Pid) =/= node() orelse is_process_alive(Pid).

%% Whether the room's self-presence is, or may be, the answer to a re-entry: a new join
-spec is_awaited(join()) -> boolean().
is_awaited(#{entry := #{phase := asked}}) -> true;
is_awaited(_) -> false.

answer(#{waiter := none} = Entry, _) ->
    Entry;
answer(#{waiter := {Pid, Tag, Id}} = Entry, Outcome) ->
    Pid ! {Tag, Id, {reentry, Outcome}},
    Entry#{waiter := none}.

%% The room has answered a ping that the session is in it, and not the re-entry before. Stanzas arrive in order, so the
%% answer was lost with a stream, and with it what the client has missed. An occupant that enters once more gets all of
%% it again. Nobody waits for that: if it fails, the session is in the room nevertheless.
-spec recover(binary(), pos_integer(), state(), context()) -> state().
recover(Room, Timeout, State, Context) ->
    case ping_muc_tracks:find(Room, ping_muc_session:track(State, Context)) of
        #{entry := #{phase := asked, withdrawn := false} = Entry} = Join ->
            ?DEBUG("ping_muc: the answer to a re-entry into ~ts was lost with a stream, so it is repeated", [Room]),
            Over = (answer(Entry, {entered, false}))#{overdue := true},
            case enter({Room, 0}, Join#{entry := Over}, {none, Timeout}, State, Context) of
                {ok, Next} -> Next;
                _ -> ping_muc_session:update(Room, Join#{entry := Over}, State, Context)
            end;
        _ ->
            State
    end.

%% A timer has fired.
-spec continue({expire | history, binary(), binary()}, state(), context()) -> state().
continue({What, Room, Id}, State, Context) ->
    case ping_muc_tracks:find(Room, ping_muc_session:track(State, Context)) of
        #{entry := #{id := Id, phase := in} = Entry} = Join -> % admitted, and the history has not ended
            ping_muc_session:update(Room, Join#{entry := answer(Entry, {entered, is_missed(Entry)})}, State, Context);
        #{entry := #{id := Id} = Entry} = Join when What =:= expire -> % the room may still admit it
            ping_muc_session:update(Room, Join#{entry := (answer(Entry, expired))#{overdue := true}}, State, Context);
        _ ->
            State
    end.

%% The session goes on in this process.
-spec copied(binary(), join(), state()) -> state().
copied(Room, #{entry := #{phase := Phase, deadline := Deadline} = Entry}, State) ->
    timer(Deadline - now_ms(), expire, Room, Entry),
    _ = [timer(?HISTORY_WITHIN, history, Room, Entry) || Phase =:= in],
    State;
copied(_, _, State) ->
    State.

%% The user's own action: it enters, or takes another nick.
-spec withdraw(join()) -> join().
withdraw(#{entry := #{phase := asked} = Entry} = Join) ->
    Join#{entry := (answer(Entry, rejoining))#{withdrawn := true}};
withdraw(Join) ->
    Join.

%% A join has ended. By: the user, who left; the room, or a notice, so that the client knows; other: for another reason.
-spec ended(binary(), join(), user | room | notice | other, state(), context()) -> state().
ended(Room, #{entry := #{phase := asked} = Entry}, By, State, Context) ->
    _ = answer(Entry, if By =:= other -> gone; true -> conflict end),
    case By of
        other -> State;
        user -> hold(Room, Entry, #{known => false, admitted => false}, State, Context); % its own leave follows
        _ -> leave(Room, Entry, false, State, Context)
    end;
ended(_, #{entry := #{phase := in} = Entry}, _, State, _) ->
    _ = answer(Entry, {entered, false}),
    State;
ended(_, _, _, State, _) ->
    State.

hold(Room, #{id := Id, earlier := Earlier, occupant := Occupant}, Hold, State, Context) ->
    #{holds := Holds} = Track = ping_muc_session:track(State, Context),
    #jid{lresource = Nick} = jid:decode(Occupant),
    New = Hold#{ids => [Id | [Earlier || Earlier =/= none]], nick => Nick},
    ping_muc_session:store(Track#{holds := ping_muc_holds:begins(Room, New, Holds)}, State).

%% Leaves on the session's behalf. Until the room has confirmed that, the client sees nothing of it.
leave(Room, #{occupant := Occupant} = Entry, IsAdmitted, #{jid := JID} = State, Context) ->
    Held = hold(Room, Entry, #{known => true, admitted => IsAdmitted}, State, Context),
    Id = new_id(),
    #{holds := Holds} = Track = ping_muc_session:track(Held, Context),
    Next = ping_muc_session:store(Track#{holds := ping_muc_holds:add_id(Room, Id, Holds)}, Held),
    ping_muc_session:send_as(ping_muc_stanzas:leave(Id, JID, jid:decode(Occupant)), Next).

%% Whether an error from a room is the answer to a re-entry, and therefore not for the client
-spec takes_error(join(), presence(), boolean()) -> {boolean(), join()}.
takes_error(#{entry := #{phase := asked, id := Own, earlier := Earlier} = Entry, attempt := Attempt} = Join,
            #presence{id = Id} = Error, IsGenuine) ->
    if
        Id =:= <<>>, Attempt =/= none ->
            %% Probably the answer to the client, which must learn that it is not admitted. The room answers in order.
            {false, Join#{entry := none}};
        Id =/= <<>>, Id =/= Own ->
            {Id =:= Earlier, Join};
        IsGenuine ->
            _ = answer(Entry, {error, Error}),
            {true, Join#{entry := none}};
        true ->
            {true, Join#{entry := (answer(Entry, {error, Error}))#{overdue := true}}}
    end;
takes_error(Join, _, _) ->
    {false, Join}.

%% The room says that it is new (status 201), and the user its owner. If that is the answer to a re-entry, the session
%% leaves at once, and its client sees nothing of it. The join stays, for a notice.
-spec takes_new_room(binary(), join(), state(), context()) -> {boolean(), state()}.
takes_new_room(Room, #{entry := #{phase := asked, withdrawn := false} = Entry} = Join, State, Context) ->
    ?DEBUG("ping_muc: re-entry into ~ts: the room no longer existed, the session leaves it again", [Room]),
    _ = answer(Entry, new),
    {true, leave(Room, Entry, true, ping_muc_session:update(Room, Join#{entry := none}, State, Context), Context)};
takes_new_room(_, _, State, _) ->
    {false, State}.

%% An occupant whom the room shows to an entering session. If there are too many, or they come too late, the list is not
%% complete. Then no occupant is reported as gone.
-spec announced(join(), binary()) -> join().
announced(#{entry := #{phase := asked, announced := Announced, overdue := Overdue} = Entry} = Join, Nick) ->
    case is_map_key(Nick, Announced) of
        true -> Join;
        false when Overdue; map_size(Announced) >= ?MAX_ANNOUNCED -> Join#{entry := Entry#{snapshot := unknown}};
        false -> Join#{entry := Entry#{announced := Announced#{Nick => true}}}
    end;
announced(Join, _) ->
    Join.

%% The room has admitted the session, and its new join has been recorded.
-spec entered(binary(), join(), state(), context()) -> state().
entered(Room, #{entry := #{phase := asked, withdrawn := true}} = Join, State, Context) ->
    ping_muc_session:update(Room, Join#{entry := none}, State, Context);
entered(Room, #{entry := #{phase := asked} = Entry, nick := Nick} = Join, #{jid := JID} = State, Context) ->
    #{snapshot := Known, announced := Announced, begun := Begun, occupant := Occupant} = Entry,
    ?DEBUG("ping_muc: re-entry of ~ts into ~ts", [ping_muc_session:full(State), Room]),
    ping_muc_rosters:shown(Context, Room, Begun),
    #jid{lresource = Own} = At = jid:decode(Occupant),
    Missing = ping_muc_rosters:entered(Context, Room, {ping_muc_session:full(State), Nick}, Known, Announced),
    Told = lists:foldl(fun(Gone, Before) ->
                               ejabberd_c2s:send(Before, ping_muc_stanzas:gone(jid:replace_resource(At, Gone), JID))
                       end, State, lists:delete(Own, Missing)),
    timer(?HISTORY_WITHIN, history, Room, Entry),
    In = Entry#{phase := in, filter_until := now_ms() + ?FILTER_WITHIN, announced := #{}, snapshot := unknown},
    ping_muc_session:update(Room, Join#{entry := In}, Told, Context);
entered(_, _, State, _) ->
    State.

%% A message of the room. Returns whether it is held back: the session had it before.
-spec takes_message(join(), message(), binary(), context()) -> {boolean(), join()}.
takes_message(#{entry := Entry, lines := Lines} = Join, Message, Room, Context) ->
    Line = ping_muc_history:line(Message),
    IsFiltered = is_filtered(Entry),
    case Line of
        #{age := Age} when Age =/= none, IsFiltered ->
            #{lines := Count, known := Known, came_back := CameBack} = Entry,
            case ping_muc_history:had(Line, Lines) of
                none ->
                    {false, heard(Line, Join#{entry := Entry#{lines := Count + 1}}, Context)};
                Name ->
                    {true, Join#{entry := Entry#{lines := Count + 1, came_back := CameBack orelse Name =:= Known}}}
            end;
        _ ->
            IsOver = is_map(Entry) andalso map_get(phase, Entry) =:= in
                andalso (not IsFiltered orelse ping_muc_history:ends(Message)),
            {false, heard(Line, if IsOver -> finish(Join, Room); true -> Join end, Context)}
    end.

is_filtered(#{withdrawn := false, phase := asked}) -> true;
is_filtered(#{withdrawn := false, filter_until := Until}) -> now_ms() < Until;
is_filtered(_) -> false.

heard(Line, #{lines := Lines} = Join, #{settings := #{reenter := true}}) when Line =/= none ->
    Join#{lines := ping_muc_history:heard(Line, now_ms() / 1000, Lines)};
heard(_, Join, _) ->
    Join.

%% The history has arrived, or will not.
finish(#{entry := #{earlier := Earlier, finished := Finished} = Entry} = Join, Room) ->
    IsMissed = is_missed(Entry),
    _ = [?INFO_MSG("ping_muc: The history of ~ts did not reach back to what a session had: messages are missing",
                   [Room]) || IsMissed andalso not Finished],
    Answered = answer(Entry, {entered, IsMissed}),
    %% Otherwise the room may send it twice.
    Join#{entry := if Earlier =:= none -> none; true -> Answered#{finished := true} end}.

%% The room has sent lines, but not the newest one that the session had. So some lines are missing.
is_missed(#{known := Known, lines := Lines, came_back := CameBack}) ->
    Known =/= none andalso Lines > 0 andalso not CameBack.

now_ms() ->
    erlang:monotonic_time(millisecond).
