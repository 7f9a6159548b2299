%%% What the processes of a host do if another one does not answer, or was stopped
-module(ping_muc_process_tests).

-include_lib("eunit/include/eunit.hrl").
-include("xmpp.hrl").

-define(HOST, <<"example.net">>).
-define(ROOM, <<"room@muc.host">>).
-define(USER, <<"juliet@example.net/phone">>).

context() ->
    {ok, _} = application:ensure_all_started(p1_utils),
    ping_muc_host:start(?HOST, #{refresh => 60, exclude => #{}, reenter => false}).

%% A timer that fires while the module is stopped is lost.
expired_test() ->
    Join = fun(Left, Waiter) ->
                   Deadline = erlang:monotonic_time(millisecond) + Left,
                   #{entry => #{phase => asked, overdue => false, deadline => Deadline, waiter => Waiter}}
           end,
    Waits = {self(), make_ref(), <<"id">>},
    ?assert(ping_muc_reentry:is_under_way(Join(60000, Waits))),
    ?assert(ping_muc_reentry:is_under_way(Join(0, Waits))),
    ?assertNot(ping_muc_reentry:is_under_way(Join(-60000, Waits))),
    ?assertNot(ping_muc_reentry:is_under_way(Join(-1, none))).

%% The session may still be connected. If it were gone, the receiver would forget the join.
no_reply_to_notice_test() ->
    Item = #{kind => notice, name => <<"presence">>, id => <<"a">>, from => <<"f">>, to => <<"t">>},
    {answer, Text} = ping_muc_outcomes:nothing(Item, context()),
    ?assertNotEqual(nomatch, binary:match(iolist_to_binary(Text), <<"<conflict">>)),
    ?assertNotEqual(nomatch, binary:match(iolist_to_binary(Text), <<"<rejoining">>)).

rosters_do_not_answer_test() ->
    Context = (context())#{settings => #{reenter => true, reenter_occupants => true}},
    ?assertEqual(unknown, ping_muc_rosters:snapshot(Context, ?ROOM, 1)),
    ?assertEqual([], ping_muc_rosters:entered(Context, ?ROOM, {?USER, <<"juliet">>}, #{<<"romeo">> => true}, #{})).

%% However much of the settings is logged, the key is not.
key_is_not_printed_test() ->
    Key = binary:copy(<<"k">>, 24),
    Options = maps:from_list([{Name, Default} || {Name, Default} <- ping_muc_settings:options()]),
    Read = ping_muc_settings:read(Options#{webhook_url => <<"https://a">>,
                                           secret => [<<"whsec_", (base64:encode(Key))/binary>>]}),
    ?assertEqual([Key], (maps:get(secrets, Read))()),
    ?assertEqual(nomatch, string:find(io_lib:format("~p", [Read]), "kkk")).

-define(NICK, <<"juliet">>).

session(Context) ->
    Track = ping_muc_tracks:new(maps:get(generation, Context)),
    {undefined, In} = ping_muc_tracks:confirmed(?ROOM, ?NICK, 1, Track),
    ping_muc_joins:put(Context, ?ROOM, ?USER, 1, ?NICK),
    #{lserver => ?HOST, jid => jid:decode(?USER), ping_muc => In}.

sends_unavailable(To) ->
    State = session(context()),
    {_, Next} = ping_muc_sessions:user_send_packet({#presence{type = unavailable, to = jid:decode(To)}, State}),
    is_map_key(ping_muc, Next).

unavailable_test() ->
    ?assertNot(sends_unavailable(<<"juliet@example.net">>)), % to everybody
    ?assertNot(sends_unavailable(<<?ROOM/binary, "/juliet">>)),
    ?assert(sends_unavailable(<<"juliet@example.net/tablet">>)). % to another session of the account

%% The events would be lost with the process.
sender_survives_test() ->
    ?assertMatch({noreply, unchanged}, ping_muc_sender:handle_call({renew, [crash]}, from, unchanged)).

handover_test() ->
    ok = ping_muc_handover:save(shutdown, ?HOST, test, first),
    ok = ping_muc_handover:save(shutdown, ?HOST, test, second),
    ok = ping_muc_handover:save(crash, ?HOST, test, third),
    ?assertEqual(second, ping_muc_handover:take(?HOST, test, none)),
    ?assertEqual(none, ping_muc_handover:take(?HOST, test, none)).

%% A hook that crashes returns what it was given, so the session and the stream go on.
hooks_survive_test() ->
    #{ping_muc := Track} = State = session(context()),
    Session = State#{ping_muc := Track#{rooms := crash}},
    Occupant = jid:decode(<<?ROOM/binary, "/juliet">>),
    User = jid:decode(?USER),
    Sent = {#presence{type = unavailable, to = Occupant}, Session},
    ?assertEqual(Sent, ping_muc_sessions:user_send_packet(Sent)),
    Received = {#presence{type = unavailable, from = Occupant, to = User}, Session},
    ?assertEqual(Received, ping_muc_sessions:user_receive_packet(Received)),
    ?assertEqual({stop, Session}, ping_muc_sessions:c2s_handle_info(Session, {ping_muc, crash})),
    ?assertEqual(Session, ping_muc_sessions:c2s_terminated(Session, normal)),
    Stream = #{server => ?HOST, ping_muc => crash},
    Message = #message{from = Occupant, to = User},
    ?assertEqual({Message, Stream}, ping_muc_streams:s2s_receive_packet({Message, Stream})).

%% The process that the session goes on in tracks its joins.
resumed_test() ->
    State = (session(context()))#{mgmt_state => resumed, pres_a => gb_sets:new()},
    Leaves = #presence{type = unavailable, from = jid:decode(<<?ROOM/binary, "/juliet">>), to = jid:decode(?USER)},
    ?assertEqual({Leaves, State}, ping_muc_sessions:user_receive_packet({Leaves, State})),
    HasLeft = {ping_muc, {has_left, ?ROOM, <<"juliet">>}},
    ?assertEqual({stop, State}, ping_muc_sessions:c2s_handle_info(State, HasLeft)),
    Active = State#{mgmt_state := active},
    ?assertNotEqual({Leaves, Active}, ping_muc_sessions:user_receive_packet({Leaves, Active})),
    ?assertNotEqual({stop, Active}, ping_muc_sessions:c2s_handle_info(Active, HasLeft)).

carries(Stanza) ->
    #{generation := Generation} = context(),
    Stream = #{began => 1, carried => false, generation => Generation},
    State = #{server => ?HOST, ping_muc => #{?HOST => Stream}},
    #{ping_muc := #{?HOST := #{carried := Carried}}} = ping_muc_streams:s2s_out_handle_send(State, Stanza, ok),
    Carried.

carried_test() ->
    User = jid:decode(?USER),
    Occupant = jid:decode(<<?ROOM/binary, "/juliet">>),
    ?assertNot(carries(ping_muc_stanzas:ping(User, Occupant))),
    ?assert(carries(ping_muc_stanzas:entry(#presence{}, {<<"id">>, User, Occupant}, 1))), % it makes a join
    ?assert(carries(#message{from = User, to = Occupant})).

%% As after module_upgrade: the new code is there, and the old one is loaded.
upgrade_test() ->
    File = code:which(ping_muc_text),
    {ok, {_, [{abstract_code, {_, [Source, Name | Rest]}}]}} = beam_lib:chunks(File, [abstract_code]),
    New = {function, 0, upgraded, 0, [{clause, 0, [], [], [{atom, 0, yes}]}]},
    {Forms, [Eof]} = lists:split(length(Rest) - 1, Rest),
    {ok, _, Binary} = compile:forms([Source, Name, {attribute, 0, export, [{upgraded, 0}]}] ++ Forms ++ [New, Eof]),
    {ok, Before} = file:read_file(File),
    ok = file:write_file(File, Binary),
    try
        ?assertEqual({error, failed}, mod_ping_muc_webhook:start(?HOST, [])), % there is no ejabberd
        ?assertEqual(yes, ping_muc_text:upgraded())
    after
        ok = file:write_file(File, Before) % Dialyzer reads it
    end.

%% Nothing runs that could answer.
renewals_go_on_test() ->
    Context = context(),
    ping_muc_joins:put(Context, ?ROOM, ?USER, 1, <<"juliet">>),
    State = #{host => ?HOST, place => 0.0, at => erlang:monotonic_time(millisecond) - 60000, left => [],
              timer => none, next => none},
    {noreply, Sliced} = ping_muc_renewals:handle_info(slice, State),
    ?assert(is_integer(erlang:read_timer(maps:get(timer, Sliced)))),
    {noreply, #{left := [_], next := First} = Announced} = ping_muc_renewals:handle_cast(announce, State),
    {noreply, #{left := [_], next := Next}} = ping_muc_renewals:handle_info(next, Announced),
    ?assertNotEqual(First, Next),
    ?assertEqual(false, erlang:read_timer(First)),
    ?assert(is_integer(erlang:read_timer(Next))).
