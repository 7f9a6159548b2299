%%% Requests to the stanza API, from the body to the answer. Each runs in a process of its own, so a crash harms nothing
%%% else, and what it waits for ends with it.
%%%
%%% A request is read, examined as a whole, and carried out stanza by stanza, in the processes of the sessions. Then it
%%% waits for the rooms' answers, and is answered when all have arrived or its time-out has passed.
-module(ping_muc_requests).

-export([run/3]).

-include("xmpp.hrl").

%% ms after the time-out of the last query: for a session that is slow, or an answer that nobody vouches for
-define(GRACE, 5000).
-define(RETRY_AFTER, 50). % ms until a session that goes on in another process is looked up again
-define(MAX_RETRIES, 40).
-define(FREE_WITHIN, 100). % times that the end of a bouncing stream is awaited, 10 ms each

-type context() :: ping_muc_host:context().
-type item() :: ping_muc_contract:item().
%% pending: Id → the item, and what is awaited: the reply of a session's process, or the answer of a room. answers: the
%% text so far. is_answered: whether all rooms have answered their pings.
-type state() :: #{tag := reference(), deadline := integer(), timeout := pos_integer(), context := context(),
                   pending := #{binary() => {item(), {session, pid(), non_neg_integer()} | room}},
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
    Pids = ping_muc_streams:take_bouncing(Context, Remote),
    lists:foreach(fun ejabberd_s2s_out:stop_async/1, Pids),
    wait_until_gone({Host, Remote}, Pids, ?FREE_WITHIN).

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
about(#{host := Host, settings := #{dry_run := DryRun}} = Context) ->
    #{webhooks := Webhooks} = ping_muc_sender:status(Context),
    [{<<"host">>, Host}, {<<"version">>, ping_muc_contract:version()}, {<<"dry_run">>, atom_to_binary(DryRun, utf8)},
     {<<"webhooks">>, atom_to_binary(Webhooks, utf8)}].

finished(Items, #{context := Context, is_answered := IsAnswered}) ->
    Rooms = lists:usort([Room || #{kind := Kind, room := Room} <- Items, Kind =/= notice]),
    ping_muc_doubts:pings_finished(Context, Rooms, IsAnswered).

%% Carries out an item. Tries: how often its session was looked up in vain
-spec perform(item(), non_neg_integer(), state()) -> state().
perform(#{kind := refused, reason := Why} = Item, _, #{context := #{host := Host}} = State) ->
    answer(Item, ping_muc_answers:server_error(Item, {modify, 'policy-violation'}, Host, [Why]), State);
perform(#{user := {User, Server, Resource}, id := Id} = Item, Tries, #{pending := Pending} = State) ->
    #{tag := Tag, timeout := Timeout, deadline := Deadline} = State,
    case ejabberd_sm:get_session_pid(User, Server, Resource) of
        none ->
            gone(Item, State);
        Pid ->
            ping_muc_sessions:ask(Pid, {self(), Tag}, Item, {Deadline + ?GRACE, Timeout}),
            watch(Pid, State#{pending := Pending#{Id => {Item, {session, Pid, Tries}}}})
    end.

watch(Pid, #{sessions := Sessions} = State) ->
    case Sessions of
        #{Pid := _} -> State;
        _ -> State#{sessions := Sessions#{Pid => erlang:monitor(process, Pid)}}
    end.

gone(Item, #{context := #{host := Host}} = State) ->
    answered(Item, ping_muc_answers:server_error(Item, {cancel, 'recipient-unavailable'}, Host, []), State).

%% Adds an answer. For an item that counted as a query, see answered/3.
answer(#{id := Id}, Text, #{answers := Answers, pending := Pending} = State) ->
    State#{answers := [Text | Answers], pending := maps:remove(Id, Pending)}.

answered(#{kind := notice} = Item, Text, State) ->
    answer(Item, Text, State);
answered(#{remote := Remote} = Item, Text, #{context := Context} = State) ->
    ping_muc_gate:answered(Context, Remote),
    answer(Item, Text, State).

%% Waits until nothing is pending.
-spec wait(state()) -> state().
wait(#{pending := Pending} = State) when map_size(Pending) =:= 0 ->
    State;
wait(#{deadline := Deadline} = State) ->
    receive
        Message -> wait(take(Message, State))
    after max(0, Deadline - now_ms()) ->
            #{pending := Pending} = State,
            lists:foldl(fun expire/2, State#{is_answered := false}, maps:values(Pending))
    end.

take({Tag, Id, Answer}, #{tag := Tag, pending := Pending} = State) ->
    case Pending of
        #{Id := {Item, {session, _, Tries}}} -> replied(Answer, Item, Tries, State);
        _ -> State
    end;
take({iq_reply, Answer, {Tag, Id, Sent}}, #{tag := Tag, pending := Pending} = State) ->
    case Pending of
        #{Id := {Item, _}} -> query_answered(Answer, Sent, Item, State);
        _ -> State
    end;
take({'DOWN', _, process, Pid, _}, #{sessions := Sessions, pending := Pending} = State) ->
    Left = [{Item, Tries} || {Item, {session, Session, Tries}} <- maps:values(Pending), Session =:= Pid],
    lists:foldl(fun({Item, Tries}, Before) -> retry(Item, Tries, Before) end,
                State#{sessions := maps:remove(Pid, Sessions)}, Left);
take({retry, Id, Tries}, #{pending := Pending} = State) ->
    case Pending of
        #{Id := {Item, _}} -> perform(Item, Tries, State);
        _ -> State
    end;
take(_, State) ->
    State.

%% A session's process has replied.
replied(sent, #{id := Id} = Item, _, #{pending := Pending} = State) ->
    State#{pending := Pending#{Id := {Item, room}}};
replied(delivered, Item, _, State) ->
    answer(Item, [], State);
replied(moved, Item, Tries, State) ->
    retry(Item, Tries, State);
replied(proven, Item, _, State) ->
    answered(Item, ping_muc_answers:proof(Item), State);
replied(Refusal, Item, _, #{context := #{host := Host}} = State) ->
    {Error, Extras} = case Refusal of
                          conflict -> {{cancel, conflict}, []};
                          rejoining -> {{cancel, conflict}, [{<<"rejoining">>, []}]};
                          unsupported -> {{cancel, 'feature-not-implemented'}, []}
                      end,
    answered(Item, ping_muc_answers:server_error(Item, Error, Host, Extras), State).

%% The session goes on in another process, or has ended.
retry(Item, Tries, State) when Tries >= ?MAX_RETRIES ->
    gone(Item, State);
retry(#{id := Id} = Item, Tries, #{pending := Pending} = State) ->
    _ = erlang:send_after(?RETRY_AFTER, self(), {retry, Id, Tries + 1}),
    State#{pending := Pending#{Id := {Item, {session, self(), Tries}}}}.

%% A room has answered, this server has in its place, or the time is over.
query_answered(timeout, Sent, Item, State) ->
    unanswered(Item, Sent, State);
query_answered(#iq{type = result, from = From} = Answer, Sent, Item, State) ->
    case is_asked(From, Item) of
        true -> room_result(ping_muc_stanzas:began(Answer), Sent, Item, State);
        false -> State % no answer of the room
    end;
query_answered(#iq{from = From} = Answer, Sent, Item, #{context := #{host := Host}} = State) ->
    case {is_asked(From, Item), ping_muc_stanzas:began(Answer)} of
        {false, _} -> State;
        {true, undefined} -> bounced(xmpp:get_error(Answer), Sent, Item, State);
        {true, _} -> answered(Item, ping_muc_answers:room_error(Item, Answer, Host), State)
    end.

is_asked(From, #{kind := ping, occupant := Occupant}) -> jid:encode(jid:tolower(From)) =:= Occupant;
is_asked(From, #{kind := disco, room := Room}) -> jid:encode(jid:tolower(From)) =:= Room.

room_result(undefined, Sent, Item, State) ->
    unanswered(Item, Sent, State);
room_result(_, _, #{kind := ping, room := Room, full := Full} = Item, #{context := Context} = State) ->
    ping_muc_joins:note(Context, Room, Full, #{heard => erlang:monotonic_time(second)}),
    answered(Item, ping_muc_answers:result(Item), State);
room_result(_, _, Item, State) ->
    answered(Item, ping_muc_answers:result(Item), State).

%% This server could not deliver the query. If a stream broke meanwhile, that says nothing about the host.
bounced(Error, {_, Breaks} = Sent, #{remote := Remote} = Item, #{context := #{host := Host} = Context} = State) ->
    Closed = ping_muc_joins:newest_close(Context, Remote),
    IsBroken = ping_muc_joins:breaks(Context, Remote) =/= Breaks,
    Unproven = State#{is_answered := false},
    case {proof(Item, Context), IsBroken, Error} of
        {true, _, _} ->
            answered(Item, ping_muc_answers:proof(Item), State);
        {false, true, _} ->
            unanswered(Item, Sent, State);
        {false, false, #stanza_error{reason = 'remote-server-not-found'}} ->
            answered(Item, ping_muc_answers:server_error(Item, {cancel, 'remote-server-not-found'}, Host,
                                                         ping_muc_answers:closed(Closed)), Unproven);
        _ ->
            answered(Item, ping_muc_answers:no_answer(Item, Host, undefined, Closed), Unproven)
    end.

%% The room did not answer. A stream that broke meanwhile may have lost the answer. If there is no stream, this server
%% itself knows that the host cannot be reached.
unanswered(#{remote := Remote} = Item, {SentAt, Breaks}, #{context := #{host := Host} = Context} = State) ->
    IsBroken = ping_muc_joins:breaks(Context, Remote) =/= Breaks,
    Silence = case IsBroken orelse ping_muc_streams:is_reachable(Context, Remote) of
                  true -> {IsBroken, ping_muc_joins:heard(Context, Remote) > SentAt};
                  false -> undefined
              end,
    Text = case proof(Item, Context) of
               true -> ping_muc_answers:proof(Item);
               false -> ping_muc_answers:no_answer(Item, Host, Silence, ping_muc_joins:newest_close(Context, Remote))
           end,
    answered(Item, Text, State#{is_answered := false}).

%% Whether the room has sent the session what only its occupants get, over a stream that began after the close
proof(#{kind := ping, room := Room, full := Full, at := At, close := Close}, Context) when is_integer(Close) ->
    case ping_muc_joins:find(Context, Room, Full) of
        #{at := At, proof := Proof} -> Proof > Close;
        _ -> false
    end;
proof(_, _) ->
    false.

%% Nothing has come at all: the answer came from somebody else, or the session's process does not reply. Nothing is
%% known then, so a query is inconclusive.
expire({#{kind := notice} = Item, _}, State) ->
    gone(Item, State);
expire({#{remote := Remote} = Item, _}, #{context := #{host := Host} = Context} = State) ->
    Closed = ping_muc_joins:newest_close(Context, Remote),
    answered(Item, ping_muc_answers:no_answer(Item, Host, {true, false}, Closed), State).

now_ms() ->
    erlang:monotonic_time(millisecond).
