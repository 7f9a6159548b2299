%%% Sessions: the hooks in a session's process. The truth about its joins is in its own state, so whatever is decided
%%% about a join is decided in the order in which the session sends and receives.
-module(ping_muc_sessions).

-export([hooks/0, ask/4]).
-export([user_send_packet/1, user_receive_packet/1, c2s_handle_info/2, c2s_copy_session/2, c2s_terminated/2]).

-include("xmpp.hrl").

-type state() :: ejabberd_c2s:state().

%% Hook, function, and its place among the others
-spec hooks() -> [{atom(), atom(), integer()}].
hooks() ->
    [{user_send_packet, user_send_packet, 90}, % late: what another module has dropped does not count
     {user_receive_packet, user_receive_packet, 10}, % early, before another module drops it
     {c2s_handle_info, c2s_handle_info, 40},
     {c2s_copy_session, c2s_copy_session, 50},
     %% After mod_stream_mgmt (50), which stops here if the session goes on in another process
     {c2s_terminated, c2s_terminated, 60}].

%% Asks a session's process to do what an item of the stanza API says, until a deadline in monotonic milliseconds. For
%% the reply see ping_muc_actions.
-spec ask(pid(), {pid(), reference()}, ping_muc_contract:item(), {integer(), pos_integer()}) -> ok.
ask(Session, ReplyTo, Item, Times) ->
    Session ! {ping_muc, {perform, ReplyTo, Item, Times}},
    ok.

%% What the session sends

-spec user_send_packet({stanza() | drop, state()}) -> {stanza() | drop, state()}.
user_send_packet({#presence{type = Type, to = #jid{}} = Presence, State} = Acc)
  when Type =:= available; Type =:= unavailable ->
    case ping_muc_stanzas:is_ours(Presence) of
        true -> Acc;
        false -> with_context(State, sending, fun(Context) -> {Presence, sends(Presence, State, Context)} end, Acc)
    end;
user_send_packet(Acc) ->
    Acc.

sends(#presence{type = available, to = #jid{luser = Node, lserver = Remote, lresource = Nick}} = Presence, State,
      Context) when Node =/= <<>>, Nick =/= <<>> ->
    case ping_muc_host:is_watched(Context, Remote) of
        true ->
            IsEntry = ping_muc_stanzas:is_entry(Presence),
            Room = <<Node/binary, $@, Remote/binary>>,
            Track = withdraw(Room, Nick, IsEntry, ping_muc_session:track(State, Context)),
            Times = {os:system_time(millisecond) / 1000, erlang:monotonic_time(millisecond)},
            ping_muc_session:store(ping_muc_tracks:asks(Room, IsEntry, Times, Track), State);
        false ->
            State
    end;
sends(#presence{type = unavailable, to = To}, #{jid := JID} = State, Context) ->
    %% To the session's own account, and so to everybody; not to another session of it
    Rooms = case jid:tolower(To) =:= jid:tolower(jid:remove_resource(JID)) of
                true -> maps:keys(ping_muc_tracks:rooms(ping_muc_session:track(State, Context)));
                false -> [bare(To)]
            end,
    Leave = fun(Room, Before) ->
                    Track = ping_muc_tracks:forget_ask(Room, ping_muc_session:track(Before, Context)),
                    ping_muc_session:finish(Room, user, Track, Before, Context)
            end,
    lists:foldl(Leave, State, Rooms);
sends(_, State, _) ->
    State.

%% The user's own action has priority over a re-entry.
withdraw(Room, Nick, IsEntry, #{holds := Holds} = Track) ->
    Again = if IsEntry -> Track#{holds := ping_muc_holds:user_enters(Room, Holds)}; true -> Track end,
    case ping_muc_tracks:find(Room, Again) of
        #{nick := Own} = Join when IsEntry; Nick =/= Own ->
            ping_muc_tracks:update(Room, ping_muc_reentry:withdraw(Join), Again);
        _ ->
            Again
    end.

bare(JID) ->
    jid:encode(jid:tolower(jid:remove_resource(JID))).

%% What rooms send

-spec user_receive_packet({stanza() | drop, state()}) -> {stanza() | drop, state()} | {stop, {drop, state()}}.
%% The session goes on in another process, to which this one sends what it gets.
user_receive_packet({_, #{mgmt_state := resumed}} = Acc) ->
    Acc;
user_receive_packet({Stanza, #{ping_muc := _} = State} = Acc) when ?is_stanza(Stanza) ->
    %% An error has the mark of the stanza that it returns.
    IsOurs = ping_muc_stanzas:is_ours(Stanza) andalso xmpp:get_type(Stanza) =/= error,
    case {IsOurs, xmpp:get_from(Stanza)} of
        {false, #jid{luser = Node}} when Node =/= <<>> ->
            Receive = fun(Context) ->
                              case ping_muc_reception:receives(Stanza, State, Context) of
                                  {keep, Next} -> {Stanza, Next};
                                  {drop, Next} -> {stop, {drop, Next}}
                              end
                      end,
            with_context(State, receiving, Receive, Acc);
        _ ->
            Acc
    end;
user_receive_packet(Acc) ->
    Acc.

%% What other processes ask

-spec c2s_handle_info(state(), term()) -> state() | {stop, state()}.
c2s_handle_info(State, {ping_muc, Request}) ->
    with_context(State, acting, fun(Context) -> {stop, handle(Request, State, Context)} end, {stop, State});
c2s_handle_info(State, _) ->
    State.

handle({perform, ReplyTo, Item, Times}, State, Context) ->
    ping_muc_actions:perform(ReplyTo, Item, Times, State, Context);
handle(_, #{mgmt_state := resumed} = State, _) ->
    State; % the session goes on in another process
handle({found_in, Room, Timeout}, State, Context) ->
    ping_muc_reentry:recover(Room, Timeout, State, Context);
handle({reentry, What, Room, Id}, State, Context) ->
    ping_muc_reentry:continue({What, Room, Id}, State, Context);
handle({gone, Room, Nick}, #{jid := JID} = State, _) ->
    ejabberd_c2s:send(State, ping_muc_stanzas:gone(jid:replace_resource(jid:decode(Room), Nick), JID));
handle(Request, State, Context) ->
    ping_muc_adoption:perform(Request, State, Context).

%% The session itself

%% It goes on in this process (XEP-0198).
-spec c2s_copy_session(state(), state()) -> state().
c2s_copy_session(State, #{ping_muc := Track}) ->
    Copied = State#{ping_muc => Track},
    Copy = fun(Context) ->
                   Rooms = ping_muc_tracks:rooms(ping_muc_session:track(Copied, Context)),
                   maps:fold(fun(Room, Join, Before) ->
                                     ping_muc_joins:move(Context, Room, ping_muc_session:full(Before), self()),
                                     ping_muc_reentry:copied(Room, Join, Before)
                             end, Copied, Rooms)
           end,
    with_context(Copied, copying, Copy, Copied);
c2s_copy_session(State, _) ->
    State.

-spec c2s_terminated(state(), term()) -> state().
c2s_terminated(#{ping_muc := _} = State, _Reason) ->
    End = fun(Context) ->
                  Rooms = maps:keys(ping_muc_tracks:rooms(ping_muc_session:track(State, Context))),
                  lists:foldl(fun(Room, Before) ->
                                      Track = ping_muc_session:track(Before, Context),
                                      ping_muc_session:finish(Room, other, Track, Before, Context)
                              end, State, Rooms)
          end,
    with_context(State, ending, End, State);
c2s_terminated(State, _Reason) ->
    State.

%% A crash of this module must not harm the session.
with_context(#{lserver := Host}, What, Fun, Otherwise) ->
    ping_muc_host:safely(Host, What, Fun, Otherwise).
