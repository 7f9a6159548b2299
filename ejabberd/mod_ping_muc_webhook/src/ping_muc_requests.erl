%%% Requests to the stanza API, from the body to the answer. Each runs in a process of its own, so a crash harms nothing
%%% else, and what it waits for ends with it.
%%%
%%% A request is read, examined as a whole, and carried out stanza by stanza, in the processes of the sessions. Then it
%%% waits for the rooms' answers, and is answered when all have arrived or its time-out has passed.
-module(ping_muc_requests).

-export([run/3]).

%% ms after the time-out of the last query: for a session that is slow, or an answer from another address than the one
%% asked
-define(GRACE, 5000).
-define(RETRY_AFTER, 50). % ms until a session that goes on in another process is looked up again
-define(MAX_RETRIES, 40).
-define(FREE_WITHIN, 100). % times that the end of a bouncing stream is awaited, 10 ms each

-type context() :: ping_muc_host:context().
-type item() :: ping_muc_contract:item().
%% What is awaited: the reply of a session's process, which was looked up so often before; or the answer of a room
-type awaited() :: {session, pid(), non_neg_integer()} | {room, pid(), ping_muc_actions:sent()}.
%% pending: Id → the item, and what is awaited. answers: the text so far. is_answered: whether all rooms have answered.
-type state() :: #{tag := reference(), deadline := integer(), timeout := pos_integer(), context := context(),
                   pending := #{binary() => {item(), awaited()}},
                   sessions := #{pid() => reference()}, answers := [iodata()], is_answered := boolean()}.

%% Key: by which a replay is recognised. Returns the answer, or HTTP status and text of a refusal.
-spec run(context(), binary(), term()) -> {ok, iodata()} | {error, 400..599, binary()}.
run(Context, Body, Key) ->
    case ping_muc_gate:enter(Context, Key) of
        ok ->
            case read(Context, Body) of
                {ok, Items, Timeout} ->
                    {ok, carry_out(Items, Timeout, Context)};
                Refusal ->
                    ping_muc_gate:refuse(Context, Key),
                    Refusal
            end;
        replay -> {error, 401, <<"this request was replayed: a retry takes a new webhook-timestamp">>};
        busy -> {error, 503, <<"too many requests in flight">>};
        full -> {error, 503, iolist_to_binary(["too many requests within ",
                                               integer_to_list(ping_muc_replays:memory()), " seconds"])}
    end.

%% The whole request is examined before any part of it is sent.
read(#{host := Host} = Context, Body) ->
    case ping_muc_contract:parse(Body) of
        {ok, Stanzas, Timeout} ->
            Items = [ping_muc_contract:check(Stanza, Host, fun ejabberd_router:is_my_route/1) || Stanza <- Stanzas],
            Queried = [{Remote, Room} || #{kind := Kind, remote := Remote, room := Room} <- Items, Kind =/= notice],
            Counts = lists:foldl(fun({Remote, _}, Sum) -> maps:update_with(Remote, fun(N) -> N + 1 end, 1, Sum) end,
                                 #{}, Queried),
            IsSingle = length(lists:usort([Room || {_, Room} <- Queried])) =:= 1,
            case ping_muc_gate:admit(Context, Counts, IsSingle) of
                ok ->
                    lists:foreach(fun(Remote) -> free(Remote, Context) end, maps:keys(Counts)),
                    {ok, Items, Timeout};
                {refused, Status, Why} ->
                    {error, Status, Why}
            end;
        {error, Why} ->
            {error, 400, Why}
    end.

%% After a connect that failed, ejabberd bounces everything to that host for up to five minutes, even once the host is
%% back. So the stream that bounces is ended, and the first query makes a new attempt.
free(Remote, #{host := Host} = Context) ->
    wait_until_gone({Host, Remote}, end_bouncing(Remote, Context), ?FREE_WITHIN).

end_bouncing(Remote, Context) ->
    Pids = ping_muc_streams:take_bouncing(Context, Remote),
    lists:foreach(fun ejabberd_s2s_out:stop_async/1, Pids),
    Pids.

%% What is sent to a process that has ended would be lost.
wait_until_gone(Pair, Pids, Times) when Pids =/= [], Times > 0 ->
    Left = [Pid || Pid <- ejabberd_s2s:get_connections_pids(Pair), lists:member(Pid, Pids)],
    if Left =/= [] -> timer:sleep(10); true -> ok end,
    wait_until_gone(Pair, Left, Times - 1);
wait_until_gone(_, _, _) ->
    ok.

carry_out(Items, Timeout, Context) ->
    State = #{tag => make_ref(), deadline => now_ms() + Timeout * 1000, timeout => Timeout * 1000, context => Context,
              pending => #{}, sessions => #{}, answers => [], is_answered => true},
    Begun = lists:foldl(fun(Item, Before) -> perform(Item, 0, Before) end, State, Items),
    %% The time-out begins here, so that a long request that takes time to send does not look like silence of the rooms.
    #{answers := Answers} = Done = wait(Begun#{deadline := now_ms() + Timeout * 1000 + ?GRACE}),
    finished(Items, Done),
    ping_muc_answers:root(about(Context), Answers).

%% What is known about this host
about(#{host := Host, settings := #{dry_run := DryRun} = Settings} = Context) ->
    %% Everything has been carried out by now. So the answer does not depend on another process.
    #{webhooks := Webhooks} = try ping_muc_sender:status(Context) catch exit:_ -> #{webhooks => none} end,
    [{<<"host">>, Host}, {<<"version">>, ping_muc_contract:version()}, {<<"dry_run">>, atom_to_binary(DryRun, utf8)},
     {<<"webhooks">>, atom_to_binary(Webhooks, utf8)}
     | [{atom_to_binary(Name, utf8), integer_to_binary(maps:get(Name, Settings))}
        || Name <- [delay, timeout, patience]]].

%% The users' own stanzas must not be bounced because a query made an attempt to connect that failed.
finished(Items, #{context := Context, is_answered := IsAnswered}) ->
    Remotes = lists:usort([Remote || #{kind := Kind, remote := Remote} <- Items, Kind =/= notice]),
    _ = [end_bouncing(Remote, Context) || Remote <- Remotes], % the answer does not wait until they are gone
    Rooms = lists:usort([Room || #{kind := Kind, room := Room} <- Items, Kind =/= notice]),
    ping_muc_doubts:pings_finished(Context, Rooms, IsAnswered).

%% Carries out an item. Tries: how often its session was looked up in vain
-spec perform(item(), non_neg_integer(), state()) -> state().
perform(#{kind := refused, reason := Why} = Item, _, #{context := #{host := Host}, answers := Answers} = State) ->
    Text = ping_muc_answers:server_error(Item, {modify, 'policy-violation'}, Host, [Why]),
    State#{answers := [Text | Answers]};
perform(#{id := Id} = Item, Tries, #{tag := Tag, timeout := Timeout, deadline := Deadline} = State) ->
    case session(Item) of
        none ->
            settle(ping_muc_outcomes:reply(gone, Item, maps:get(context, State)), Item, State);
        Pid ->
            ping_muc_sessions:ask(Pid, {self(), Tag}, Item, {Deadline + ?GRACE, Timeout}),
            await(Id, {Item, {session, Pid, Tries}}, watch(Pid, State))
    end.

session(#{user := {User, Server, Resource}}) ->
    ejabberd_sm:get_session_pid(User, Server, Resource).

watch(Pid, #{sessions := Sessions} = State) ->
    case Sessions of
        #{Pid := _} -> State;
        _ -> State#{sessions := Sessions#{Pid => erlang:monitor(process, Pid)}}
    end.

await(Id, Awaited, #{pending := Pending} = State) ->
    State#{pending := Pending#{Id => Awaited}}.

%% Waits until nothing is pending.
-spec wait(state()) -> state().
wait(#{pending := Pending} = State) when map_size(Pending) =:= 0 ->
    State;
wait(#{deadline := Deadline} = State) ->
    receive
        Message -> wait(take(Message, State))
    after max(0, Deadline - now_ms()) ->
            #{pending := Pending, context := Context} = State,
            lists:foldl(fun({Item, _}, Before) -> settle(ping_muc_outcomes:nothing(Item, Context), Item, Before) end,
                        State, maps:values(Pending))
    end.

take({Tag, Id, Answer}, #{tag := Tag, pending := Pending, context := Context} = State) ->
    case {Pending, Answer} of
        {#{Id := {Item, {session, Pid, _}}}, {sent, Sent}} ->
            await(Id, {Item, {room, Pid, Sent}}, State);
        {#{Id := {Item, {session, _, Tries}}}, moved} ->
            look_again(Item, Tries, State);
        {#{Id := {Item, {room, _, Sent}}}, {reentry, Outcome}} ->
            settle(ping_muc_outcomes:reentry(Outcome, Sent, Item, Context), Item, State);
        {#{Id := {Item, _}}, {reentry, Outcome}} -> % before the reply that it was sent
            Now = {os:system_time(microsecond), ping_muc_joins:breaks(Context, maps:get(remote, Item))},
            settle(ping_muc_outcomes:reentry(Outcome, Now, Item, Context), Item, State);
        {#{Id := {Item, {session, _, _}}}, _} ->
            settle(ping_muc_outcomes:reply(Answer, Item, Context), Item, State);
        _ ->
            State
    end;
take({iq_reply, Answer, {Tag, Id, Sent}}, #{tag := Tag, pending := Pending, context := Context} = State) ->
    case Pending of
        #{Id := {Item, _}} -> settle(ping_muc_outcomes:query(Answer, Sent, Item, Context), Item, State);
        _ -> State
    end;
take({'DOWN', _, process, Pid, _}, #{sessions := Sessions, pending := Pending} = State) ->
    Left = [{Item, Awaited} || {Item, {_, Session, _} = Awaited} <- maps:values(Pending), Session =:= Pid],
    lists:foldl(fun({Item, {session, _, Tries}}, Before) -> look_again(Item, Tries, Before);
                   ({#{kind := reentry} = Item, {room, _, Sent}}, Before) -> follow(Item, Sent, Before);
                   (_, Before) -> Before % the room's answer does not need the session
                end, State#{sessions := maps:remove(Pid, Sessions)}, Left);
take({look_again, Id, Tries}, #{pending := Pending} = State) ->
    case Pending of
        #{Id := {Item, _}} -> perform(Item, Tries, State);
        _ -> State
    end;
take(_, State) ->
    State.

%% The session goes on in another process, or has ended.
look_again(Item, Tries, #{context := Context} = State) when Tries >= ?MAX_RETRIES ->
    settle(ping_muc_outcomes:reply(gone, Item, Context), Item, State);
look_again(#{id := Id} = Item, Tries, State) ->
    _ = erlang:send_after(?RETRY_AFTER, self(), {look_again, Id, Tries + 1}),
    await(Id, {Item, {session, self(), Tries}}, State).

%% A re-entry goes on in another process, with its session.
follow(#{id := Id} = Item, Sent, #{context := Context} = State) ->
    case session(Item) of
        none -> settle(ping_muc_outcomes:reply(gone, Item, Context), Item, State);
        Pid -> await(Id, {Item, {room, Pid, Sent}}, watch(Pid, State))
    end.

%% What becomes of an item
-spec settle(ping_muc_outcomes:outcome(), item(), state()) -> state().
settle(ignore, _, State) ->
    State;
settle({perform, Item}, _, State) ->
    perform(Item, 0, State);
settle({in_room, Text}, Item, State) ->
    found_in(Item, State),
    settle({answer, Text}, Item, State);
settle({silence, Text}, Item, State) ->
    settle({answer, Text}, Item, State#{is_answered := false});
settle({answer, Text}, #{id := Id} = Item, #{answers := Answers, pending := Pending, context := Context} = State) ->
    case Item of
        #{kind := notice} -> ok;
        #{remote := Remote} -> ping_muc_gate:answered(Context, Remote)
    end,
    State#{answers := [Text | Answers], pending := maps:remove(Id, Pending)}.

%% The room has answered, too. And a session that is in its room may have missed the answer to its re-entry.
found_in(#{room := Room, full := Full} = Item, #{timeout := Timeout, context := #{settings := Settings} = Context}) ->
    ping_muc_joins:note(Context, Room, Full, #{heard => erlang:monotonic_time(second)}),
    case {Settings, session(Item)} of
        {#{reenter := true, dry_run := false}, Pid} when is_pid(Pid) -> Pid ! {ping_muc, {found_in, Room, Timeout}}, ok;
        _ -> ok
    end.

now_ms() ->
    erlang:monotonic_time(millisecond).
