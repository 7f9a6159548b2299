%%% Adoption: finds users who were in rooms before the module watched these
%%%
%%% ejabberd knows the addresses to which a session has sent directed presence. The room knows whether it is a room, and
%%% whether the session is in it. It is asked about the opposite, too: a tracked join in a room to which ejabberd knows
%%% no presence. The user may have left while the module was stopped, or an error of the room may have removed the
%%% address although the user is still in.
-module(ping_muc_adoption).

-export([start/2, drop_dead/1, ends_if_dead/2, drop_unwatched/1, perform/3]).

-include("ejabberd_sm.hrl").
-include("logger.hrl").
-include("xmpp.hrl").

-define(MAX_IN_FLIGHT, 50). % queries to rooms
-define(TIMEOUT, 60000). % ms of a query
-define(COLLECT_WITHIN, 10000). % ms in which the sessions say where they are

-type context() :: ping_muc_host:context().
%% Where a session may be: untracked, or missing in ejabberd's list of addresses
-type candidate() :: {untracked | missing, pid(), jid(), Room :: binary(), Nick :: binary()}.

%% Begins, in a process of its own, whose end nobody awaits. IsSearched: says whether to search the rooms of a remote
%% host for users.
-spec start(context(), fun((binary()) -> boolean())) -> ok.
start(Context, IsSearched) ->
    _ = spawn(fun() -> ping_muc_log:safely(adoption, fun() -> adopt(Context, IsSearched) end, ok) end),
    ok.

%% Ends the joins of sessions that have ended while the module was stopped.
-spec drop_dead(context()) -> ok.
drop_dead(Context) ->
    Joins = ping_muc_joins:fold(fun(Join, Before) -> [Join | Before] end, [], Context),
    lists:foreach(fun(Join) -> ends_if_dead(Context, Join) end, Joins).

%% A session's process that was killed has not said that its joins have ended. Returns whether that is so.
-spec ends_if_dead(context(), ping_muc_joins:join()) -> boolean().
ends_if_dead(Context, #{room := Room, user := User, at := At} = Join) ->
    IsDead = ping_muc_joins:drop_dead(Context, Join),
    _ = [ping_muc_sender:left(Context, User, Room, At) || IsDead],
    IsDead.

%% Ends the joins in rooms that are no longer watched.
-spec drop_unwatched(context()) -> ok.
drop_unwatched(Context) ->
    Drop = fun(#{room := Room, pid := Pid}, _) ->
                   case ping_muc_host:is_watched(Context, remote(Room)) of
                       true -> ok;
                       false -> Pid ! {ping_muc, {unwatched, Room}}, ok
                   end
           end,
    ping_muc_joins:fold(Drop, ok, Context).

%% In the session's process

-spec perform(term(), ejabberd_c2s:state(), context()) -> ejabberd_c2s:state().
perform({places, ReplyTo, Tag}, #{jid := JID, pres_a := Addresses} = State, Context) ->
    Joins = ping_muc_tracks:rooms(ping_muc_session:track(State, Context)),
    Places = [{Remote, room(Place), Nick} || {Node, Remote, Nick} = Place <- gb_sets:to_list(Addresses), Node =/= <<>>],
    Untracked = [{untracked, self(), JID, Room, Nick} || {Remote, Room, Nick} <- Places,
                                                         Nick =/= <<>>, not is_map_key(Room, Joins),
                                                         ping_muc_host:is_watched(Context, Remote)],
    Missing = [{missing, self(), JID, Room, Nick}
               || {Room, #{nick := Nick}} <- maps:to_list(maps:without([Room || {_, Room, _} <- Places], Joins))],
    ReplyTo ! {places, Tag, self(), Untracked ++ Missing},
    State;
perform({adopt, Room, Nick}, #{pres_a := Addresses} = State, Context) ->
    Track = ping_muc_session:track(State, Context),
    IsThere = gb_sets:is_element(address(Room, Nick), Addresses)
        andalso ping_muc_tracks:find(Room, Track) =:= undefined,
    if IsThere -> ping_muc_session:record(Room, Nick, Track, State, Context); true -> State end;
perform({has_left, Room, Nick}, #{pres_a := Addresses} = State, Context) ->
    Track = ping_muc_session:track(State, Context),
    case {ping_muc_tracks:find(Room, Track), gb_sets:is_element(address(Room, Nick), Addresses)} of
        {#{nick := Nick}, false} -> ping_muc_session:finish(Room, other, Track, State, Context);
        _ -> State % it has entered again
    end;
perform({unwatched, Room}, State, Context) ->
    ping_muc_session:finish(Room, other, ping_muc_session:track(State, Context), State, Context);
perform(_, State, _) ->
    State.

room({Node, Remote, _}) ->
    <<Node/binary, $@, Remote/binary>>.

address(Room, Nick) ->
    #jid{luser = Node, lserver = Remote} = jid:decode(Room),
    {Node, Remote, Nick}.

%% In the process of the adoption

adopt(Context, IsSearched) ->
    Found = [Candidate || {_, _, _, Room, _} = Candidate <- candidates(Context), IsSearched(remote(Room))],
    {Untracked, Missing} = lists:partition(fun(Candidate) -> element(1, Candidate) =:= untracked end, Found),
    Rooms = maps:groups_from_list(fun({_, _, _, Room, _}) -> Room end, Untracked),
    case map_size(Rooms) of
        0 -> ok;
        Count -> ?DEBUG("ping_muc: asking ~b rooms for users who were in them already", [Count])
    end,
    run([{verify, Candidate} || Candidate <- Missing]
        ++ [{explore, Room, Candidates} || {Room, Candidates} <- maps:to_list(Rooms)], 0).

remote(Room) ->
    [_, Remote] = binary:split(Room, <<"@">>),
    Remote.

-spec candidates(context()) -> [candidate()].
candidates(#{host := Host}) ->
    Tag = make_ref(),
    Sessions = [Pid || #session{usr = {_, Server, _}, sid = {_, Pid}} <- ejabberd_sm:dirty_get_my_sessions_list(),
                       Server =:= Host],
    Monitors = maps:from_list([{Pid, erlang:monitor(process, Pid)} || Pid <- Sessions]),
    _ = [Pid ! {ping_muc, {places, self(), Tag}} || Pid <- Sessions],
    collect(Tag, Monitors, erlang:monotonic_time(millisecond) + ?COLLECT_WITHIN, []).

collect(_, Monitors, _, Found) when map_size(Monitors) =:= 0 ->
    Found;
collect(Tag, Monitors, Deadline, Found) ->
    receive
        {places, Tag, Pid, Places} ->
            {Monitor, Left} = maps:take(Pid, Monitors),
            _ = erlang:demonitor(Monitor, [flush]),
            collect(Tag, Left, Deadline, Places ++ Found);
        {'DOWN', _, process, Pid, _} ->
            collect(Tag, maps:remove(Pid, Monitors), Deadline, Found)
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
            Found
    end.

%% Runs tasks, each of which sends a query, with few queries in flight.
run([Task | Tasks], Busy) when Busy < ?MAX_IN_FLIGHT ->
    send(Task),
    run(Tasks, Busy + 1);
run([], 0) ->
    ok;
run(Tasks, Busy) ->
    receive
        {iq_reply, Answer, Task} -> run(answered(Answer, Task) ++ Tasks, Busy - 1)
    after 2 * ?TIMEOUT ->
            ok
    end.

send({explore, Room, [{_, _, JID, _, _} | _]} = Task) ->
    query(ping_muc_stanzas:disco(JID, jid:decode(Room)), Task);
send({verify, {_, _, JID, Room, Nick}} = Task) ->
    query(ping_muc_stanzas:ping(JID, jid:replace_resource(jid:decode(Room), Nick)), Task).

query(Query, Task) ->
    ejabberd_router:route_iq(Query, Task, self(), ?TIMEOUT).

%% Returns the tasks that follow.
answered(Answer, {explore, _, Candidates}) ->
    case is_room(Answer) of
        true -> [{verify, Candidate} || Candidate <- Candidates];
        false -> []
    end;
answered(Answer, {verify, {What, Pid, _, Room, Nick}}) ->
    _ = case {What, may_be_in(Answer)} of
            {untracked, true} -> Pid ! {ping_muc, {adopt, Room, Nick}};
            {missing, false} -> Pid ! {ping_muc, {has_left, Room, Nick}};
            _ -> ok
        end,
    [].

is_room(#iq{type = result} = Answer) ->
    case ping_muc_stanzas:began(Answer) =/= undefined andalso xmpp:get_subtag(Answer, #disco_info{}) of
        #disco_info{features = Features, identities = Identities} ->
            lists:member(?NS_MUC, Features)
                orelse lists:any(fun(#identity{category = Category}) -> Category =:= <<"conference">> end, Identities);
        _ ->
            false
    end;
is_room(_) ->
    false.

%% Whether the answer to a ping, or the lack of one, leaves it possible that the session is in the room
may_be_in(#iq{type = error} = Answer) ->
    case {ping_muc_stanzas:began(Answer), xmpp:get_error(Answer)} of
        {undefined, _} -> true;
        {_, #stanza_error{type = wait}} -> true;
        {_, #stanza_error{reason = Reason}} ->
            lists:member(Reason, ['service-unavailable', 'feature-not-implemented', 'item-not-found',
                                  'remote-server-not-found', 'remote-server-timeout']);
        _ -> true
    end;
may_be_in(_) ->
    true.
