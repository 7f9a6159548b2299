%%% What is reported, and when: outbox, folds, closes; and the joins of a session
-module(ping_muc_events_tests).

-include_lib("eunit/include/eunit.hrl").

%% Outbox

event(Key, At) ->
    ping_muc_outbox:event(<<"muc.joined">>, Key, At, #{}, At).

first(Key, At) ->
    (event(Key, At))#{known := false}.

add(Event, Outbox) ->
    {true, Added} = ping_muc_outbox:add(Event, Outbox),
    Added.

filled(Events) ->
    lists:foldl(fun add/2, ping_muc_outbox:new(<<"example.net">>), Events).

keys(#{events := Events}) ->
    [Key || #{key := Key} <- Events].

batch_test() ->
    {Batch, Taken} = ping_muc_outbox:next_batch(filled([event(b, 2), event(a, 1)])),
    ?assertEqual([a, b], keys(Batch)),
    ?assertMatch({ok, #{<<"host">> := <<"example.net">>, <<"events">> := [#{<<"at">> := 1}, #{<<"at">> := 2}]}},
                 ping_muc_json:decode(maps:get(body, Batch))),
    ?assertMatch({Batch, _}, ping_muc_outbox:next_batch(Taken)), % a retry is the same request
    ?assertMatch({none, _}, ping_muc_outbox:next_batch(ping_muc_outbox:accept(Taken))).

newest_replaces_test() ->
    {Batch, _} = ping_muc_outbox:next_batch(filled([event(a, 1), event(b, 2), event(a, 3)])),
    ?assertEqual([b, a], keys(Batch)),
    ?assertMatch({false, _}, ping_muc_outbox:add(event(a, 1), filled([event(a, 3)]))).

retry_without_what_is_superseded_test() ->
    {#{id := Id}, Taken} = ping_muc_outbox:next_batch(filled([event(a, 1), event(b, 2)])),
    {Batch, _} = ping_muc_outbox:next_batch(add(event(a, 3), Taken)),
    ?assertMatch(#{events := [#{key := b, at := 2}, #{key := a, at := 3}]}, Batch),
    ?assertNotEqual(Id, maps:get(id, Batch)).

unknown_join_leaves_no_trace_test() ->
    {false, Left} = ping_muc_outbox:leave(event(a, 2), filled([first(a, 1)])),
    ?assertMatch({none, _}, ping_muc_outbox:next_batch(Left)),
    {true, Known} = ping_muc_outbox:leave(event(a, 2), filled([event(a, 1)])),
    ?assertMatch({#{events := [#{at := 2}]}, _}, ping_muc_outbox:next_batch(Known)),
    %% Once it was in a batch, the receiver may know it.
    {_, Taken} = ping_muc_outbox:next_batch(filled([first(a, 1)])),
    ?assertMatch({true, _}, ping_muc_outbox:leave(event(a, 2), Taken)).

known_is_inherited_test() ->
    %% A leave waits, and the session joins again: its next leave must be reported.
    Joined = add(first(a, 3), filled([event(a, 2)])),
    ?assertMatch({true, _}, ping_muc_outbox:leave(event(a, 4), Joined)).

superseded_in_flight_is_known_test() ->
    {Batch, Taken} = ping_muc_outbox:next_batch(filled([first(a, 1)])),
    Put = ping_muc_outbox:put_back(Batch, true, add(first(a, 2), Taken)),
    ?assertMatch({true, _}, ping_muc_outbox:leave(event(a, 3), Put)).

split_test() ->
    Events = [event(N, N) || N <- lists:seq(1, 10)],
    {Batch, Taken} = ping_muc_outbox:next_batch(filled(Events)),
    {Half, _} = ping_muc_outbox:next_batch(add(event(late, 11), ping_muc_outbox:put_back(Batch, false, Taken))),
    ?assertEqual([1, 2, 3, 4, 5], keys(Half)), % before later ones
    {Last, _} = ping_muc_outbox:next_batch(ping_muc_outbox:put_back(Batch, true, add(event(late, 11), Taken))),
    ?assertEqual([1, 2, 3, 4, late], lists:sort(keys(Last))). % refused: after the others

alone_test() ->
    {One, Taken} = ping_muc_outbox:next_batch(filled([event(a, 1)])),
    Fail = fun(_, {Batch, Outbox}) -> ping_muc_outbox:next_batch(ping_muc_outbox:put_back(Batch, false, Outbox)) end,
    {Retry, Again} = lists:foldl(Fail, {One, add(event(b, 2), Taken)}, lists:seq(1, 4)),
    ?assertEqual([a], keys(Retry)), % a join that fails stays before a close that comes later
    {First, _} = Fail(5, {Retry, Again}),
    ?assertEqual([b], keys(First)). % but not for ever

limits_test() ->
    Many = filled([event(N, N) || N <- lists:seq(1, 1001)]),
    {#{events := Events}, Taken} = ping_muc_outbox:next_batch(Many),
    ?assertEqual(1000, length(Events)),
    ?assertEqual(1, ping_muc_outbox:waiting(Taken)),
    ?assert(ping_muc_outbox:is_full(Many)),
    Text = binary:copy(<<"x">>, 60000),
    Large = filled([ping_muc_outbox:event(<<"muc.joined">>, N, N, #{nick => Text}, 1) || N <- lists:seq(1, 6)]),
    {#{body := Body, events := Four}, _} = ping_muc_outbox:next_batch(Large),
    ?assertEqual(4, length(Four)),
    ?assert(byte_size(Body) =< 262144).

renewals_wait_test() ->
    Renewal = ping_muc_outbox:renewal(r, 1, #{}, 1),
    {true, Outbox} = ping_muc_outbox:renew(Renewal, filled([event(a, 2)])),
    ?assertMatch({false, _}, ping_muc_outbox:renew(Renewal, Outbox)),
    ?assertMatch({false, _}, ping_muc_outbox:renew(ping_muc_outbox:renewal(a, 1, #{}, 1), Outbox)),
    {true, Alone} = ping_muc_outbox:renew(Renewal, ping_muc_outbox:new(<<"example.net">>)),
    {#{is_fresh := false}, Taken} = ping_muc_outbox:next_batch(Alone),
    {#{is_fresh := true} = Batch, _} = ping_muc_outbox:next_batch(add(event(a, 2), Taken)),
    ?assertEqual([r, a], keys(Batch)).

heartbeat_test() ->
    {Batch, Taken} = ping_muc_outbox:next_batch(filled([event(a, 1)])),
    #{body := Body, is_heartbeat := true} = ping_muc_outbox:heartbeat(Batch, 5, Taken),
    ?assertMatch({ok, #{<<"queue">> := #{<<"length">> := 1, <<"oldest">> := 4}, <<"events">> := [_]}},
                 ping_muc_json:decode(Body)),
    #{body := Empty} = ping_muc_outbox:heartbeat(none, 5, ping_muc_outbox:accept(Taken)),
    ?assertMatch({ok, #{<<"queue">> := #{<<"length">> := 0, <<"oldest">> := 0}, <<"events">> := []}},
                 ping_muc_json:decode(Empty)).

%% Folds

change(Type, Earlier) ->
    #{key => k, remote => <<"muc.host">>, type => Type, event => event(k, 1), earlier => Earlier, is_queued => false}.

folds_test() ->
    New = ping_muc_folds:new(),
    {[{send, _}], None} = ping_muc_folds:report(change(joined, undefined), 60, 1000, New),
    ?assertEqual(New, None), % most joins never change
    %% The join and three changes are sent at once; the next ones wait 1, 2, 4 … seconds.
    {Waits, _} = lists:mapfoldl(fun(N, {Folds, Now}) ->
                                        case ping_muc_folds:report(change(joined, 1000 - N), 60, Now, Folds) of
                                            {[{send, _}], Next} ->
                                                {0, {Next, Now}};
                                            {[{wait, k, Due, Seconds}], Next} ->
                                                {[], Replaced} =
                                                    ping_muc_folds:report(change(left, 1000), 60, Now, Next),
                                                ?assertMatch({[], _}, ping_muc_folds:due(k, Due + 1, Now, Replaced)),
                                                {[{send, #{type := left}}], Sent} =
                                                    ping_muc_folds:due(k, Due, Due, Replaced),
                                                {Seconds, {Sent, Due}}
                                        end
                                end, {New, 1000}, lists:seq(1, 11)),
    ?assertEqual([0, 0, 0], lists:sublist(Waits, 3)),
    ?assertEqual([1.0, 2.0, 4.0, 8.0], lists:sublist(Waits, 4, 4)),
    ?assert(lists:all(fun(Wait) -> Wait =< 55 end, Waits)).

queued_is_replaced_test() ->
    ?assertMatch({[{send, _}], _},
                 ping_muc_folds:report((change(left, 999))#{is_queued := true}, 60, 1000, ping_muc_folds:new())).

quiet_test() ->
    {_, Folds} = ping_muc_folds:report(change(left, 999), 60, 1000, ping_muc_folds:new()),
    ?assertNotEqual(ping_muc_folds:new(), Folds),
    ?assertMatch({[], #{waiting := Waiting}} when map_size(Waiting) =:= 0, ping_muc_folds:sweep(5000, Folds)).

%% Closes

close(At) ->
    #{at => At, direction => incoming, reason => <<>>}.

closes_test() ->
    {report_and_window, One} = ping_muc_closes:closed(a, close(1), false, ping_muc_closes:new()),
    {report, _} = ping_muc_closes:closed(a, close(2), true, One), % replaces the one that waits to be sent
    {hold, Two} = ping_muc_closes:closed(a, close(2), false, One),
    {hold, Three} = ping_muc_closes:closed(a, close(3), false, Two),
    ?assertEqual(1, ping_muc_closes:held(Three)),
    ?assertMatch({report_and_window, _}, ping_muc_closes:closed(b, close(4), false, Three)),
    {#{at := 3}, Next} = ping_muc_closes:window_over(a, true, Three), % the newest, and a new window
    ?assertMatch({hold, _}, ping_muc_closes:closed(a, close(5), false, Next)),
    {none, Closed} = ping_muc_closes:window_over(a, true, Next),
    ?assertEqual(ping_muc_closes:new(), Closed),
    ?assertMatch({none, _}, ping_muc_closes:window_over(a, false, Three)).

%% Tracks (rule 1 in docs/rules.md)

-define(ROOM, <<"room@muc.host">>).

tracks_test() ->
    Asked = ping_muc_tracks:asks(?ROOM, true, {100, 5}, ping_muc_tracks:new(1)),
    ?assertEqual(5, ping_muc_tracks:asked_at(?ROOM, Asked)),
    {undefined, In} = ping_muc_tracks:confirmed(?ROOM, <<"nick">>, 1, Asked),
    ?assertEqual(undefined, ping_muc_tracks:asked_at(?ROOM, In)),
    ?assertMatch(#{at := 1, nick := <<"nick">>, attempt := none}, ping_muc_tracks:find(?ROOM, In)),
    %% An ordinary presence to the room is no attempt to enter.
    ?assertEqual(In, ping_muc_tracks:asks(?ROOM, false, {101, 6}, In)),
    Again = ping_muc_tracks:asks(?ROOM, true, {101, 6}, In),
    ?assertMatch(#{attempt := 101}, ping_muc_tracks:find(?ROOM, Again)),
    {#{at := 1}, Changed} = ping_muc_tracks:confirmed(?ROOM, <<"other">>, 2, Again),
    ?assertMatch(#{at := 2, nick := <<"other">>, attempt := none}, ping_muc_tracks:find(?ROOM, Changed)),
    {#{at := 2}, Out} = ping_muc_tracks:ended(?ROOM, Changed),
    ?assert(ping_muc_tracks:is_idle(Out)),
    ?assertMatch({undefined, Out}, ping_muc_tracks:ended(?ROOM, Out)).

bounds_test() ->
    Room = fun(N) -> <<(integer_to_binary(N))/binary, "@muc.host">> end,
    Asks = lists:foldl(fun(N, Track) -> ping_muc_tracks:asks(Room(N), true, {N, N}, Track) end,
                       ping_muc_tracks:new(1), lists:seq(1, 1001)),
    ?assertEqual(undefined, ping_muc_tracks:asked_at(Room(1), Asks)),
    ?assertEqual(2, ping_muc_tracks:asked_at(Room(2), Asks)),
    Full = lists:foldl(fun(N, Track) -> element(2, ping_muc_tracks:confirmed(Room(N), <<"n">>, N, Track)) end,
                       ping_muc_tracks:new(1), lists:seq(1, 1000)),
    ?assertEqual(full, ping_muc_tracks:confirmed(Room(1001), <<"n">>, 1001, Full)),
    ?assertMatch({#{at := 1}, _}, ping_muc_tracks:confirmed(Room(1), <<"n">>, 1001, Full)).

entering_test() ->
    Join = #{at => 1, nick => <<"n">>, attempt => none, pinged => 0, proof => 0, heard => 0, entered => 0, lines => [],
             entry => none},
    ?assertNot(ping_muc_tracks:is_entering(Join, 60, 100)),
    ?assert(ping_muc_tracks:is_entering(Join#{attempt := 50}, 60, 100)), % younger than the time-out
    ?assertNot(ping_muc_tracks:is_entering(Join#{attempt := 50, pinged := 90}, 60, 120)),
    ?assert(ping_muc_tracks:is_entering(Join#{attempt := 95, pinged := 90}, 60, 200)). % newer than the last ping
