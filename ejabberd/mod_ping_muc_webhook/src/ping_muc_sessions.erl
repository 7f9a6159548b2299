%%% Sessions: the hooks in a session's process. The truth about its joins is in its own state, so whatever is decided
%%% about a join is decided in the order in which the session sends and receives.
-module(ping_muc_sessions).

-export([hooks/0, ask/4]).
-export([user_send_packet/1, user_receive_packet/1, c2s_handle_info/2, c2s_copy_session/2, c2s_terminated/2]).
-export([record/5, finish/5, track/2, store/2, full/1]).

-include("logger.hrl").
-include("xmpp.hrl").

%% Hook, function, and its place among the others
-spec hooks() -> [{atom(), atom(), integer()}].
hooks() ->
    [{user_send_packet, user_send_packet, 90}, % late: what another module has dropped does not count
     {user_receive_packet, user_receive_packet, 10}, % early, before another module drops it
     {c2s_handle_info, c2s_handle_info, 40},
     {c2s_copy_session, c2s_copy_session, 50},
     %% After mod_stream_mgmt (50), which stops here if the session goes on in another process
     {c2s_terminated, c2s_terminated, 60}].

%% Asks a session's process to do what an item of the stanza API says, until a deadline in monotonic milliseconds. The
%% reply is {Tag, Id, Answer}; see ping_muc_actions.
-spec ask(pid(), {pid(), reference()}, ping_muc_contract:item(), {integer(), pos_integer()}) -> ok.
ask(Session, ReplyTo, Item, Times) ->
    Session ! {ping_muc, ReplyTo, Item, Times},
    ok.

%% What the session sends

-spec user_send_packet({stanza() | drop, ejabberd_c2s:state()}) -> {stanza() | drop, ejabberd_c2s:state()}.
user_send_packet({#presence{type = Type, to = #jid{}} = Presence, State} = Acc)
  when Type =:= available; Type =:= unavailable ->
    Send = fun(Context) -> {Presence, sends(Presence, State, Context)} end,
    with_context(State, sending, Send, Acc);
user_send_packet(Acc) ->
    Acc.

sends(#presence{type = available, to = #jid{luser = Node, lserver = Remote, lresource = Nick}} = Presence, State,
      Context) when Node =/= <<>>, Nick =/= <<>> ->
    case ping_muc_host:is_watched(Context, Remote) andalso not ping_muc_stanzas:is_ours(Presence) of
        true ->
            Times = {now_s(), erlang:monotonic_time(second)},
            IsEntry = ping_muc_stanzas:is_entry(Presence),
            Room = <<Node/binary, $@, Remote/binary>>,
            store(ping_muc_tracks:asks(Room, IsEntry, Times, track(State, Context)), State);
        false ->
            State
    end;
sends(#presence{type = unavailable, to = To}, #{jid := JID} = State, Context) ->
    Rooms = case {bare(To), bare(JID)} of
                {Bare, Bare} -> maps:keys(ping_muc_tracks:rooms(track(State, Context))); % to everybody
                {Room, _} -> [Room]
            end,
    lists:foldl(fun(Room, Before) -> leaves(Room, Before, Context) end, State, Rooms);
sends(_, State, _) ->
    State.

leaves(Room, State, Context) ->
    Track = ping_muc_tracks:forget_ask(Room, track(State, Context)),
    finish(Room, user, Track, State, Context).

%% What the room sends

-spec user_receive_packet({stanza() | drop, ejabberd_c2s:state()}) ->
    {stanza() | drop, ejabberd_c2s:state()} | {stop, {drop, ejabberd_c2s:state()}}.
user_receive_packet({Stanza, #{ping_muc := _} = State} = Acc) when ?is_stanza(Stanza) ->
    case {ping_muc_stanzas:is_ours(Stanza), xmpp:get_from(Stanza)} of
        {false, #jid{luser = Node}} when Node =/= <<>> ->
            with_context(State, receiving, fun(Context) -> {Stanza, receives(Stanza, State, Context)} end, Acc);
        _ ->
            Acc
    end;
user_receive_packet(Acc) ->
    Acc.

receives(#presence{type = Type} = Presence, State, Context)
  when Type =:= available; Type =:= unavailable; Type =:= error ->
    #jid{luser = Node, lserver = Remote} = xmpp:get_from(Presence),
    Track = track(State, Context),
    Room = <<Node/binary, $@, Remote/binary>>,
    case {ping_muc_tracks:find(Room, Track), ping_muc_tracks:asked_at(Room, Track)} of
        {undefined, undefined} ->
            State;
        {Join, _} ->
            presence(ping_muc_stanzas:facts(Presence), Join, Presence, heard(Room, Presence, State, Context), Context)
    end;
receives(Stanza, State, Context) ->
    #jid{luser = Node, lserver = Remote, lresource = Nick} = xmpp:get_from(Stanza),
    Room = <<Node/binary, $@, Remote/binary>>,
    case Stanza of
        %% Any occupant can send an error from its own address.
        #message{type = error} when Nick =:= <<>> ->
            denied(Room, ping_muc_stanzas:condition(Stanza), Stanza, State, Context);
        _ ->
            ok
    end,
    heard(Room, Stanza, State, Context).

%% How a room answers a message or presence of a session that is not in it: not-acceptable (XEP-0045 §7.4; Prosody
%% answers a presence with item-not-found), or item-not-found if the room itself no longer exists
denied(Room, Condition, Stanza, State, Context) when Condition =:= 'not-acceptable'; Condition =:= 'item-not-found' ->
    IsGenuine = ping_muc_stanzas:began(Stanza) =/= undefined,
    case ping_muc_tracks:find(Room, track(State, Context)) of
        #{attempt := none} when IsGenuine -> ping_muc_doubts:denied(Context, Room, full(State));
        _ -> ok % otherwise the session is entering again by itself
    end;
denied(_, _, _, _, _) ->
    ok.

%% Something came from the room. It sends its messages, and its occupants' presence, only to its occupants. But it can
%% also invite users who are not in it, or answer with an error.
heard(Room, Stanza, State, Context) ->
    Track = track(State, Context),
    case {ping_muc_tracks:find(Room, Track), ping_muc_stanzas:began(Stanza)} of
        {undefined, _} -> State;
        {_, undefined} -> State;
        {Join, Began} ->
            Heard = note_heard(Room, is_from_inside(Stanza), Join, State, Context),
            Proven = prove(Room, proves(Stanza, Join), Began, Heard, State, Context),
            if Proven =:= Join -> State; true -> store(ping_muc_tracks:update(Room, Proven, Track), State) end
    end.

is_from_inside(#message{type = error}) -> false;
is_from_inside(#message{type = groupchat}) -> true;
is_from_inside(#presence{type = Type} = Stanza) when Type =:= available; Type =:= unavailable -> has_nick(Stanza);
is_from_inside(#iq{type = error}) -> false;
is_from_inside(#presence{}) -> false;
is_from_inside(Stanza) -> has_nick(Stanza).

has_nick(Stanza) ->
    #jid{lresource = Nick} = xmpp:get_from(Stanza),
    Nick =/= <<>>.

note_heard(Room, true, #{heard := Before} = Join, State, Context) ->
    case erlang:monotonic_time(second) of
        Before ->
            Join;
        Now ->
            ping_muc_joins:note(Context, Room, full(State), #{heard => Now}),
            Join#{heard := Now}
    end;
note_heard(_, false, Join, _, _) ->
    Join.

%% A room sends the presence of the others to an entering session before it says whether it admits the session.
proves(#message{type = groupchat} = Message, _) ->
    not ping_muc_stanzas:is_delayed(Message);
proves(#presence{type = available} = Presence, #{attempt := none}) ->
    has_nick(Presence) andalso xmpp:has_subtag(Presence, #muc_user{}) andalso not ping_muc_stanzas:is_delayed(Presence);
proves(_, _) ->
    false.

prove(Room, true, Began, #{proof := Proof} = Join, State, Context) when Began > Proof ->
    ping_muc_joins:note(Context, Room, full(State), #{proof => Began}),
    Join#{proof := Began};
prove(_, _, _, Join, _, _) ->
    Join.

presence(#{type := error, room := Room, nick := Nick, condition := Condition}, Join, Presence, State, Context) ->
    case Join of
        %% A new nick that is not acceptable is no reason to doubt.
        #{nick := Own} when Nick =:= <<>>; Nick =:= Own; Condition =:= 'item-not-found' ->
            denied(Room, Condition, Presence, State, Context);
        _ ->
            ok
    end,
    Track = ping_muc_tracks:forget_ask(Room, track(State, Context)),
    case Join of
        #{attempt := Attempt} when Attempt =/= none -> finish(Room, room, Track, State, Context);
        _ -> store(Track, State)
    end;
presence(#{type := available, self := true, nick := Nick, room := Room} = Facts, Join, Presence, State, Context)
  when Nick =/= <<>> ->
    Confirmed = case Join of
                    #{attempt := none, nick := Nick} -> State;
                    _ -> record(Room, Nick, track(State, Context), State, Context)
                end,
    case Facts of
        #{began := Began} when Began =/= undefined -> heard(Room, Presence, Confirmed, Context);
        _ -> Confirmed
    end;
presence(#{type := unavailable, self := IsSelf, nick := Nick, room := Room} = Facts, #{nick := Own}, _, State, Context)
  when IsSelf; Nick =:= Own ->
    Track = track(State, Context),
    case Facts of
        #{codes := Codes, new_nick := New} ->
            case lists:member(303, Codes) of
                false -> finish(Room, room, Track, State, Context);
                %% The nick is taken from here, because not every service marks the presence of the new nick with 110.
                %% If one does, that presence decides.
                true when New =/= <<>>, New =/= Own -> record(Room, New, Track, State, Context);
                true -> State
            end
    end;
presence(_, _, _, State, _) ->
    State.

%% Joins

%% The room has confirmed the session under a nick. Returns the session's state.
-spec record(binary(), binary(), ping_muc_tracks:track(), State, ping_muc_host:context()) -> State when State :: ejabberd_c2s:state().
record(Room, Nick, Track, State, Context) ->
    At = ping_muc_host:next_at(Context),
    case ping_muc_tracks:confirmed(Room, Nick, At, Track) of
        full ->
            warn_of_many(State, Track);
        {Earlier, Next} ->
            ping_muc_joins:put(Context, Room, full(State), At, Nick),
            ping_muc_sender:joined(Context, full(State), {Room, Nick, At},
                                   case Earlier of undefined -> undefined; #{at := Before} -> Before end),
            store(Next, State)
    end.

warn_of_many(State, #{warned := true}) ->
    State;
warn_of_many(State, Track) ->
    ?WARNING_MSG("ping_muc: ~ts is in 1000 rooms, more are not watched", [full(State)]),
    store(Track#{warned => true}, State).

%% A join ends. By: who ended it, and so knows of the end. The end by a notice is not reported: the receiver has
%% requested it.
-spec finish(binary(), user | room | notice | other, ping_muc_tracks:track(), State, ping_muc_host:context()) ->
    State when State :: ejabberd_c2s:state().
finish(Room, By, Track, State, Context) ->
    {Join, Next} = ping_muc_tracks:ended(Room, Track),
    case Join of
        undefined -> ok;
        #{at := At} -> report_end(Room, By, At, State, Context)
    end,
    store(Next, State).

report_end(Room, By, At, State, Context) ->
    User = full(State),
    case ping_muc_joins:remove(Context, Room, User, self()) of
        true when By =:= notice -> ping_muc_sender:forget(Context, User, Room);
        true -> ping_muc_sender:left(Context, User, Room, At);
        false -> ok % a new session with that JID has the join now
    end.

%% The session itself

-spec c2s_handle_info(ejabberd_c2s:state(), term()) -> ejabberd_c2s:state() | {stop, ejabberd_c2s:state()}.
c2s_handle_info(State, {ping_muc, ReplyTo, Item, Times}) ->
    Do = fun(Context) -> {stop, ping_muc_actions:perform(ReplyTo, Item, Times, State, Context)} end,
    with_context(State, acting, Do, {stop, State});
c2s_handle_info(State, {ping_muc, Request}) ->
    Do = fun(Context) -> {stop, ping_muc_adoption:perform(Request, State, Context)} end,
    with_context(State, adopting, Do, {stop, State});
c2s_handle_info(State, _) ->
    State.

%% The session goes on in this process.
-spec c2s_copy_session(ejabberd_c2s:state(), ejabberd_c2s:state()) -> ejabberd_c2s:state().
c2s_copy_session(State, #{ping_muc := Track}) ->
    Copied = State#{ping_muc => Track},
    Copy = fun(Context) ->
                   _ = [ping_muc_joins:move(Context, Room, full(Copied), self())
                        || Room <- maps:keys(ping_muc_tracks:rooms(track(Copied, Context)))],
                   Copied
           end,
    with_context(Copied, copying, Copy, Copied);
c2s_copy_session(State, _) ->
    State.

-spec c2s_terminated(ejabberd_c2s:state(), term()) -> ejabberd_c2s:state().
c2s_terminated(#{ping_muc := _} = State, _Reason) ->
    End = fun(Context) ->
                  Rooms = maps:keys(ping_muc_tracks:rooms(track(State, Context))),
                  lists:foldl(fun(Room, Before) -> finish(Room, other, track(Before, Context), Before, Context) end,
                              State, Rooms)
          end,
    with_context(State, ending, End, State);
c2s_terminated(State, _Reason) ->
    State.

%% The session's state

%% A crash of this module must not harm the session.
with_context(#{lserver := Host}, What, Fun, Otherwise) ->
    case ping_muc_host:context(Host) of
        undefined -> Otherwise;
        Context -> ping_muc_log:safely(What, fun() -> Fun(Context) end, Otherwise)
    end.

%% What was stored before the module was started again is stale.
-spec track(ejabberd_c2s:state(), ping_muc_host:context()) -> ping_muc_tracks:track().
track(#{ping_muc := #{generation := Generation} = Track}, #{generation := Generation}) -> Track;
track(_, #{generation := Generation}) -> ping_muc_tracks:new(Generation).

-spec store(ping_muc_tracks:track(), State) -> State when State :: ejabberd_c2s:state().
store(Track, State) ->
    case ping_muc_tracks:is_idle(Track) of
        true -> maps:remove(ping_muc, State);
        false -> State#{ping_muc => Track}
    end.

%% The session's full JID, normalised
-spec full(ejabberd_c2s:state()) -> binary().
full(#{jid := JID}) ->
    jid:encode(jid:tolower(JID)).

bare(JID) ->
    jid:encode(jid:tolower(jid:remove_resource(JID))).

now_s() ->
    os:system_time(millisecond) / 1000.
