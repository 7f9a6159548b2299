%%% Reception: how joins follow from what rooms send to a session (rule 1 in docs/rules.md), what that proves (rule 6),
%%% and what gives rise to doubts (rule 11)
-module(ping_muc_reception).

-export([receives/3]).

-include("xmpp.hrl").

-type state() :: ejabberd_c2s:state().
-type context() :: ping_muc_host:context().

%% A stanza from an address with a local part. Returns whether the client may see it.
-spec receives(stanza(), state(), context()) -> {keep | drop, state()}.
receives(#presence{type = Type} = Presence, State, Context)
  when Type =:= available; Type =:= unavailable; Type =:= error ->
    Room = room(Presence),
    #{holds := Holds} = Track = ping_muc_session:track(State, Context),
    Join = ping_muc_tracks:find(Room, Track),
    case Join =/= undefined orelse ping_muc_tracks:asked_at(Room, Track) =/= undefined of
        false ->
            case ping_muc_holds:has(Room, Holds) of
                true -> held_presence(ping_muc_stanzas:facts(Presence), State, Context);
                false -> {keep, State}
            end;
        true ->
            Facts = ping_muc_stanzas:facts(Presence),
            see(Facts, Context),
            case held_presence(Facts, State, Context) of
                {drop, Next} -> {drop, Next};
                {keep, Next} -> presence(Facts, Presence, heard(Presence, Next, Context), Context)
            end
    end;
receives(#message{type = groupchat} = Message, State, Context) ->
    Room = room(Message),
    #{holds := Holds} = Track = ping_muc_session:track(State, Context),
    case {ping_muc_holds:takes_message(Room, Holds), ping_muc_tracks:find(Room, Track)} of
        {true, _} ->
            {drop, State};
        {false, undefined} ->
            {keep, State};
        _ ->
            Heard = heard(Message, State, Context),
            Join = ping_muc_tracks:find(Room, ping_muc_session:track(Heard, Context)),
            {IsHeld, Next} = ping_muc_reentry:takes_message(Join, Message, Room, Context),
            {if IsHeld -> drop; true -> keep end, ping_muc_session:update(Room, Next, Heard, Context)}
    end;
%% Any occupant can send an error from its own address.
receives(#message{type = error, from = #jid{lresource = <<>>}} = Message, State, Context) ->
    denied(room(Message), ping_muc_stanzas:condition(Message), Message, State, Context),
    {keep, State};
receives(Stanza, State, Context) ->
    {keep, heard(Stanza, State, Context)}.

room(Stanza) ->
    #jid{luser = Node, lserver = Remote} = xmpp:get_from(Stanza),
    <<Node/binary, $@, Remote/binary>>.

held_presence(Facts, State, Context) ->
    #{holds := Holds} = Track = ping_muc_session:track(State, Context),
    {IsHeld, Next} = ping_muc_holds:takes_presence(Facts, Holds),
    {if IsHeld -> drop; true -> keep end, ping_muc_session:store(Track#{holds := Next}, State)}.

%% The room shows an occupant, or that one has left.
see(#{room := Room, nick := Nick, occupant := true}, Context) ->
    ping_muc_rosters:see(Context, Room, Nick, true);
see(#{type := unavailable, room := Room, nick := Nick, self := IsSelf, codes := Codes}, Context) when Nick =/= <<>> ->
    case not IsSelf orelse lists:member(303, Codes) of
        true -> ping_muc_rosters:see(Context, Room, Nick, false);
        false -> ok
    end;
see(_, _) ->
    ok.

%% Something came from the room. It sends its messages, and its occupants' presence, only to its occupants. But it can
%% also invite users who are not in it, or answer with an error.
heard(Stanza, State, Context) ->
    Room = room(Stanza),
    case {ping_muc_tracks:find(Room, ping_muc_session:track(State, Context)), ping_muc_stanzas:began(Stanza)} of
        {undefined, _} ->
            State;
        {_, undefined} ->
            State;
        {Join, Began} ->
            Heard = note_heard(Room, is_from_inside(Stanza), Join, State, Context),
            case prove(Room, proves(Stanza, Heard), Began, Heard, State, Context) of
                Join -> State;
                Changed -> ping_muc_session:update(Room, Changed, State, Context)
            end
    end.

is_from_inside(#message{type = Type}) -> Type =:= groupchat;
is_from_inside(#iq{type = error}) -> false;
is_from_inside(#presence{type = Type}) when Type =/= available, Type =/= unavailable -> false;
is_from_inside(Stanza) -> has_nick(Stanza).

has_nick(Stanza) ->
    #jid{lresource = Nick} = xmpp:get_from(Stanza),
    Nick =/= <<>>.

note_heard(Room, true, #{heard := Before} = Join, State, Context) ->
    case erlang:monotonic_time(second) of
        Before ->
            Join;
        Now ->
            ping_muc_joins:note(Context, Room, ping_muc_session:full(State), #{heard => Now}),
            Join#{heard := Now}
    end;
note_heard(_, false, Join, _, _) ->
    Join.

%% A room sends the presence of the others to an entering session before it says whether it admits the session.
proves(#message{type = groupchat} = Message, _) ->
    not ping_muc_stanzas:is_delayed(Message);
proves(#presence{type = available} = Presence, #{attempt := none} = Join) ->
    has_nick(Presence) andalso not ping_muc_reentry:is_awaited(Join) andalso xmpp:has_subtag(Presence, #muc_user{})
        andalso not ping_muc_stanzas:is_delayed(Presence);
proves(_, _) ->
    false.

prove(Room, true, Began, #{proof := Proof} = Join, State, Context) when Began > Proof ->
    ping_muc_joins:note(Context, Room, ping_muc_session:full(State), #{proof => Began}),
    Join#{proof := Began};
prove(_, _, _, Join, _, _) ->
    Join.

%% A room answers a session that is not in it with not-acceptable (XEP-0045 §7.4; Prosody answers a presence with
%% item-not-found), or with item-not-found if the room itself no longer exists.
denied(Room, Condition, Stanza, State, Context) when Condition =:= 'not-acceptable'; Condition =:= 'item-not-found' ->
    IsGenuine = ping_muc_stanzas:began(Stanza) =/= undefined,
    case ping_muc_tracks:find(Room, ping_muc_session:track(State, Context)) of
        #{attempt := none} when IsGenuine -> ping_muc_doubts:denied(Context, Room, ping_muc_session:full(State));
        _ -> ok % otherwise the session is entering again by itself
    end;
denied(_, _, _, _, _) ->
    ok.

%% Presence of a room in which the session is, or which it has asked to enter
presence(#{room := Room} = Facts, Presence, State, Context) ->
    Track = ping_muc_session:track(State, Context),
    Join = ping_muc_tracks:find(Room, Track),
    case Facts of
        #{type := error} ->
            refused(Facts, Join, Presence, State, Context);
        #{type := available, self := true, nick := Nick} when Nick =/= <<>> ->
            confirmed(Facts, Join, Presence, State, Context);
        #{occupant := true, nick := Nick} when Join =/= undefined ->
            {keep, ping_muc_session:update(Room, ping_muc_reentry:announced(Join, Nick), State, Context)};
        #{type := unavailable, self := IsSelf, nick := Nick} when Join =/= undefined ->
            case IsSelf orelse Nick =:= map_get(nick, Join) of
                true -> {keep, left_or_renamed(Facts, Join, Track, State, Context)};
                false -> {keep, State}
            end;
        _ ->
            {keep, State}
    end.

%% The room does not admit the session.
refused(#{room := Room, nick := Nick, condition := Condition, began := Began}, Join, Presence, State, Context) ->
    {IsHeld, Next} = case Join of
                         undefined -> {false, State};
                         _ ->
                             {Taken, Left} = ping_muc_reentry:takes_error(Join, Presence, Began =/= undefined),
                             {Taken, ping_muc_session:update(Room, Left, State, Context)}
                     end,
    case {IsHeld, Join} of
        {true, _} ->
            {drop, Next};
        {false, #{attempt := Attempt}} when Attempt =/= none ->
            {keep, ping_muc_session:finish(Room, room, asked(Room, Next, Context), Next, Context)};
        _ ->
            _ = case Join of
                    %% A new nick that is not acceptable is no reason to doubt.
                    #{nick := Own} when Nick =:= <<>>; Nick =:= Own; Condition =:= 'item-not-found' ->
                        denied(Room, Condition, Presence, Next, Context);
                    _ -> ok
                end,
            {keep, ping_muc_session:store(asked(Room, Next, Context), Next)}
    end.

%% The question whether the session may enter has its answer.
asked(Room, State, Context) ->
    ping_muc_tracks:forget_ask(Room, ping_muc_session:track(State, Context)).

%% The room confirms that the session is in it.
confirmed(#{room := Room, nick := Nick, codes := Codes}, Join, Presence, State, Context) ->
    AskedAt = ping_muc_tracks:asked_at(Room, ping_muc_session:track(State, Context)),
    IsNew = Join =/= undefined andalso lists:member(201, Codes),
    case if IsNew -> ping_muc_reentry:takes_new_room(Room, Join, State, Context); true -> {false, State} end of
        {true, Left} ->
            {drop, Left};
        {false, _} ->
            Recorded = case Join of
                           #{attempt := none, nick := Nick} ->
                               case ping_muc_reentry:is_awaited(Join) of
                                   true -> record(Room, Nick, State, Context);
                                   false -> State
                               end;
                           _ ->
                               record(Room, Nick, State, Context)
                       end,
            {keep, admitted(Room, AskedAt, Presence, Recorded, Context)}
    end.

record(Room, Nick, State, Context) ->
    ping_muc_session:record(Room, Nick, ping_muc_session:track(State, Context), State, Context).

admitted(Room, AskedAt, Presence, State, Context) ->
    case ping_muc_tracks:find(Room, ping_muc_session:track(State, Context)) of
        undefined ->
            State;
        Join ->
            _ = [ping_muc_rosters:shown(Context, Room, AskedAt) || AskedAt =/= undefined],
            Entered = ping_muc_reentry:entered(Room, Join, State, Context),
            heard(Presence, Entered, Context)
    end.

%% The room says that the session is no longer in it, or that its nick changes (303).
left_or_renamed(#{room := Room, codes := Codes, new_nick := New}, #{nick := Own}, Track, State, Context) ->
    case lists:member(303, Codes) of
        false -> ping_muc_session:finish(Room, room, Track, State, Context);
        %% The nick is taken from here, because not every service marks the presence of the new nick with 110. If one
        %% does, that presence decides.
        true when New =/= <<>>, New =/= Own -> ping_muc_session:record(Room, New, Track, State, Context);
        true -> State
    end.
