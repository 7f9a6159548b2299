%%% The parts that only compute: queue, signatures, contract, replays, limits
-module(ping_muc_pure_tests).

-include_lib("eunit/include/eunit.hrl").
-include("xmpp.hrl").

-define(HOST, <<"example.net">>).

samples(Name) ->
    {ok, Text} = file:read_file(filename:join(os:getenv("PING_MUC_SAMPLES"), Name)),
    Text.

%% Queue

queue_order_test() ->
    Queue = lists:foldl(fun(Key, Q) -> ping_muc_queue:put(Key, Key, Q) end, ping_muc_queue:new(), [a, b, c, a]),
    ?assertMatch({b, b}, ping_muc_queue:oldest(Queue)),
    {b, b, Rest} = ping_muc_queue:take_oldest(Queue),
    ?assertMatch({c, c}, ping_muc_queue:oldest(ping_muc_queue:delete(b, Rest))),
    ?assertEqual(2, ping_muc_queue:size(Rest)),
    ?assertEqual(error, ping_muc_queue:find(b, Rest)).

%% Settings

-define(SECRET, <<"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=">>).

option(Name, Value) ->
    try {ok, (ping_muc_settings:opt_type(Name))(Value)}
    catch error:{_, Reason, _} -> {error, Reason}
    end.

settings_test() ->
    [?assertEqual({Name, {ok, Read}}, {Name, option(Name, Value)})
     || {Name, Value, Read} <- [{delay, 60, 60000}, {delay, <<"2 min">>, 120000}, {patience, 0, 0}, {silence, 0, 0},
                                {silence, <<"1 hour">>, 3600000}, {heartbeat, 60, 60000}, {notice_share, 1, 1},
                                {webhook_url, <<"https://a.example/w">>, <<"https://a.example/w">>},
                                {webhook_url, <<"http://127.0.0.2:1/w">>, <<"http://127.0.0.2:1/w">>},
                                {secret, ?SECRET, [?SECRET]}, {secret, [?SECRET, ?SECRET], [?SECRET, ?SECRET]},
                                {exclude, [<<"Irc.Example.org">>], [<<"irc.example.org">>]}]],
    [?assertMatch({Name, Value, {error, _}}, {Name, Value, option(Name, Value)})
     || {Name, Value} <- [{delay, 0}, {delay, 86401}, {delay, <<"1500 ms">>}, {patience, 86401}, {silence, 9},
                          {heartbeat, 59}, {heartbeat, 601}, {notice_share, 1.1}, {reenter_limit, 2001},
                          {webhook_url, <<"http://a.example/w">>}, {webhook_url, <<"ftp://a.example/w">>},
                          {exclude, [<<"user@a.example">>]}]],
    %% A wrong secret must not be in the message.
    [begin
         {error, Reason} = option(secret, Value),
         ?assertEqual(nomatch, string:find(io_lib:format("~p", [Reason]), "hunter2"))
     end || Value <- [<<"hunter2">>, <<"whsec_hunter2">>, [], [?SECRET, ?SECRET, ?SECRET],
                      <<(?SECRET)/binary, "hunter2">>]].

%% Text

cut_test() ->
    ?assertEqual(<<"zo">>, ping_muc_text:cut(<<"zoë"/utf8>>, 3)),
    ?assertEqual(<<"zoë"/utf8>>, ping_muc_text:cut(<<"zoë"/utf8>>, 4)),
    ?assertEqual(<<>>, ping_muc_text:cut(<<"zo", 255>>, 3)).

%% Signatures: the vectors of the contract

keys(Secrets) ->
    [begin <<"whsec_", Text/binary>> = Secret, base64:decode(Text) end || Secret <- Secrets].

sign_test() ->
    {ok, #{<<"sign">> := Vectors}} = ping_muc_json:decode(samples("signature.json")),
    ?assert(length(Vectors) >= 3),
    [?assertEqual(Signature, ping_muc_signature:sign(keys(Secrets), Id, Timestamp, Body))
     || #{<<"secrets">> := Secrets, <<"id">> := Id, <<"timestamp">> := Timestamp, <<"body">> := Body,
          <<"signature">> := Signature} <- Vectors].

verify_test() ->
    {ok, #{<<"verify">> := Vectors}} = ping_muc_json:decode(samples("signature.json")),
    ?assert(length(Vectors) >= 10),
    [begin
         Headers = {maps:get(<<"id">>, Vector, undefined), maps:get(<<"timestamp">>, Vector, undefined),
                    maps:get(<<"signature">>, Vector, undefined)},
         #{<<"secrets">> := Secrets, <<"body">> := Body, <<"now">> := Now, <<"accepted">> := Accepted,
           <<"name">> := Name} = Vector,
         ?assertEqual({Name, Accepted}, {Name, ping_muc_signature:check(keys(Secrets), Headers, Body, Now) =:= ok})
     end || Vector <- Vectors].

long_id_test() ->
    Check = fun(Length) ->
                    Id = binary:copy(<<"x">>, Length),
                    Key = <<"0123456789abcdef01234567">>,
                    Signature = ping_muc_signature:sign([Key], Id, <<"1">>, <<>>),
                    ping_muc_signature:check([Key], {Id, <<"1">>, Signature}, <<>>, 1)
            end,
    ?assertEqual(ok, Check(255)),
    ?assertMatch({error, _}, Check(256)).

%% Contract

parse(Text) ->
    ping_muc_contract:parse(iolist_to_binary(Text)).

item(Text) ->
    {ok, [Stanza], 60} = parse(["<xmpp timeout='60'>", Text, "</xmpp>"]),
    ping_muc_contract:check(Stanza, ?HOST, fun(Host) -> Host =:= ?HOST orelse Host =:= <<"muc.example.net">> end).

%% The stringprep of ejabberd takes only characters of Unicode 3.2. So no session has a nick with an emoji.
sample_request_test() ->
    {ok, Stanzas, 60} = parse(string:replace(samples("stanzas-request.xml"), <<"🦊"/utf8>>, <<"☺"/utf8>>)),
    Items = [ping_muc_contract:check(Stanza, ?HOST, fun(_) -> false end) || Stanza <- Stanzas],
    ?assertMatch([#{kind := ping, at := 1795355000123456, close := 1795355002123456, room := <<"room@muc.host">>,
                    nick := <<"nickname">>, full := <<"user@example.net/phone">>, remote := <<"muc.host">>},
                  #{kind := disco, nick := <<>>},
                  #{kind := notice, reason := <<"Connection to remote server lost">>, at := 1795355000123457},
                  #{kind := reentry}], Items),
    ?assertMatch(#{nick := <<"L'ami \"Tom\" & <Jerry> / ☺"/utf8>>, full := <<"zoë@example.net/Gajim at home/2"/utf8>>},
                 lists:nth(3, Items)).

-define(PING(From, To, Join),
        ["<iq type='get' id='a' from='", From, "' to='", To, "'><ping xmlns='urn:xmpp:ping'/>", Join, "</iq>"]).
-define(JOIN, "<join xmlns='urn:ping-muc:0' at='1'/>").

refused_test() ->
    Good = ?PING("user@example.net/a", "room@muc.host/nick", ?JOIN),
    ?assertMatch(#{kind := ping}, item(Good)),
    Bad = [?PING("user@other.net/a", "room@muc.host/nick", ?JOIN),
           ?PING("user@example.net", "room@muc.host/nick", ?JOIN),
           ?PING("User@example.net/a", "room@muc.host/nick", ?JOIN),
           ?PING("user@example.net/a", "muc.host/nick", ?JOIN),
           ?PING("user@example.net/a", "room@muc.host", ?JOIN),
           ?PING("user@example.net/a", "room@muc.example.net/nick", ?JOIN),
           ?PING("user@example.net/a", "room@muc.host/nick", ""),
           ?PING("user@example.net/a", "room@muc.host/nick", "<join xmlns='urn:ping-muc:0' at='-1'/>"),
           ?PING("user@example.net/a", "room@muc.host/nick", ?JOIN ++ "<more/>"),
           "<iq type='set' id='a' from='user@example.net/a' to='room@muc.host/nick'/>",
           "<message id='a' from='user@example.net/a' to='room@muc.host/nick'/>",
           "<presence type='subscribe' id='a' from='user@example.net/a' to='room@muc.host/nick'/>"],
    [?assertMatch({_, #{kind := refused, reason := <<_/binary>>}}, {Text, item(Text)}) || Text <- Bad].

-define(X(Inner), "<x xmlns='http://jabber.org/protocol/muc#user'>" ++ Inner ++ "</x>").
-define(ITEM, "<item affiliation='none' role='none'><reason>r</reason></item>").
-define(CODES, "<status code='110'/><status code='330'/><status code='333'/>").

notice_test() ->
    Notice = fun(Inner) -> ["<presence type='unavailable' id='a' to='user@example.net/a' from='room@muc.host/nick'>",
                            Inner, ?JOIN, "</presence>"] end,
    ?assertMatch(#{kind := notice, reason := <<"r">>}, item(Notice(?X(?ITEM ++ ?CODES)))),
    Bad = [?X(?CODES), ?X(?ITEM), ?X(?ITEM ++ ?ITEM ++ ?CODES), ?X(?ITEM ++ ?CODES ++ "<status code='307'/>"),
           ?X("<item affiliation='owner' role='none'><reason>r</reason></item>" ++ ?CODES),
           ?X("<item affiliation='none' role='none' jid='a@b'><reason>r</reason></item>" ++ ?CODES),
           ?X("<item affiliation='none' role='none'><reason>r</reason><actor/></item>" ++ ?CODES),
           ?X("<item affiliation='none' role='none'><reason>" ++ lists:duplicate(1025, $r) ++ "</reason></item>"
              ++ ?CODES),
           ?X(?ITEM ++ ?CODES) ++ "<body>x</body>", "<x xmlns='other'>" ++ ?ITEM ++ ?CODES ++ "</x>", ""],
    [?assertMatch({_, #{kind := refused}}, {Text, item(Notice(Text))}) || Text <- Bad].

root_test() ->
    Iq = "<iq type='get' id='a' from='user@example.net/a' to='room@muc.host/nick'/>",
    ?assertMatch({ok, [], 1}, parse("<xmpp timeout='1'/>")),
    ?assertMatch({ok, [_], 300},
                 parse(["<?xml version='1.0'?><xmpp xmlns='jabber:client' timeout='300'>", Iq, "</xmpp>"])),
    Bad = ["", "x", "<xmpp/>", "<xmpp timeout='0'/>", "<xmpp timeout='301'/>", "<xmpp timeout='1.5'/>",
           "<other timeout='1'/>", "<xmpp xmlns='other' timeout='1'/>", "<xmpp timeout='1'><a id='1'/></xmpp>",
           "<xmpp timeout='1'><iq/></xmpp>", ["<xmpp timeout='1'>", Iq, Iq, "</xmpp>"], ["<xmpp timeout='1'>", Iq],
           ["<xmpp timeout='1'>", Iq, "</xmpp></xmpp>"],
           "<!DOCTYPE x [<!ENTITY a 'b'>]><xmpp timeout='1'/>", "<xmpp timeout='1'><!-- no --></xmpp>",
           "<xmpp timeout='1'><?pi?></xmpp>", <<"<xmpp timeout='1'>", 255, "</xmpp>">>,
           <<"<xmpp timeout='1'>", 0, "</xmpp>">>,
           ["<xmpp timeout='1'>", lists:duplicate(30000, "&lt;"), "</xmpp>"],
           ["<xmpp timeout='1'>", [["<iq id='", integer_to_list(N), "'/>"] || N <- lists:seq(1, 1001)], "</xmpp>"]],
    [?assertMatch({_, {error, <<_/binary>>}}, {Text, parse(Text)}) || Text <- Bad].

%% Answers to webhooks

-define(HEAD, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n").

http_test() ->
    Parse = fun(Text) -> ping_muc_http:parse(iolist_to_binary(Text)) end,
    Answer = #{status => 503, retry_after => 7, body => <<"busy">>},
    ?assertEqual({ok, Answer}, Parse(?HEAD "content-length: 4\r\n\r\nbusy")),
    ?assertEqual({ok, Answer}, Parse(?HEAD "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nbus\r\n1\r\ny\r\n0\r\n\r\n")),
    ?assertEqual({until_closed, Answer}, Parse(?HEAD "\r\nbusy")),
    ?assertEqual({until_closed, Answer}, Parse([?HEAD "Server: caf", 16#e9, "\r\n\r\nbusy"])), % ISO 8859-1
    ?assertMatch({ok, #{status := 200}},
                 Parse("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
    [?assertEqual({Text, more}, {Text, Parse(Text)})
     || Text <- ["", "HTTP/1.1 5", ?HEAD, ?HEAD "content-length: 4\r\n\r\nbus",
                 ?HEAD "Transfer-Encoding: chunked\r\n\r\n4\r\nbus"]],
    [?assertThrow(_, Parse(Text))
     || Text <- ["SSH-2.0-OpenSSH_9.2\r\n", ?HEAD "Transfer-Encoding: chunked\r\n\r\nx\r\n"]].

%% Replays

replays_test() ->
    {ok, Once} = ping_muc_replays:remember(a, 1000, ping_muc_replays:new()),
    ?assertMatch({replay, _}, ping_muc_replays:remember(a, 1599, Once)),
    ?assertMatch({ok, _}, ping_muc_replays:remember(a, 1600, Once)),
    ?assertMatch({ok, _}, ping_muc_replays:remember(a, 1001, ping_muc_replays:forget(a, Once))),
    Full = lists:foldl(fun(N, Before) -> {ok, After} = ping_muc_replays:remember(N, 1000, Before), After end,
                       ping_muc_replays:new(), lists:seq(1, 10000)),
    ?assertMatch({full, _}, ping_muc_replays:remember(a, 1000, Full)),
    ?assertMatch({ok, _}, ping_muc_replays:remember(a, 1600, Full)).

key_test() ->
    Packet = binary:copy(<<"x">>, 50000),
    {Id, Timestamp} = ping_muc_replays:key(binary:part(Packet, 0, 200), binary:part(Packet, 300, 10)),
    ?assertEqual([200, 10], [binary:referenced_byte_size(Part) || Part <- [Id, Timestamp]]).

%% Limits

requests(Count, Queries, IsSingle, Limits) ->
    lists:foldl(fun(_, {ok, Before}) ->
                        Pid = spawn(fun() -> ok end),
                        {ok, Reading} = ping_muc_limits:start_reading(Pid, Before),
                        ping_muc_limits:admit(Pid, Queries, IsSingle, Reading);
                   (_, Refusal) -> Refusal
                end, {ok, Limits}, lists:seq(1, Count)).

limits_test() ->
    New = ping_muc_limits:new(),
    Reading = lists:foldl(fun(_, Before) ->
                                  {ok, After} = ping_muc_limits:start_reading(spawn(fun() -> ok end), Before),
                                  After
                          end, New, lists:seq(1, 16)),
    ?assertEqual(full, ping_muc_limits:start_reading(self(), Reading)),
    ?assertMatch({ok, _}, requests(8, #{<<"a">> => 1}, false, New)),
    ?assertMatch({refused, 429, _}, requests(9, #{<<"a">> => 1}, false, New)),
    ?assertMatch({ok, _}, requests(6, #{<<"a">> => 1}, true, New)),
    ?assertMatch({refused, 429, _}, requests(7, #{<<"a">> => 1}, true, New)),
    ?assertMatch({ok, _}, requests(2, #{<<"a">> => 500}, false, New)),
    ?assertMatch({refused, 429, _}, requests(3, #{<<"a">> => 400}, false, New)),
    ?assertMatch({ok, _}, requests(400, #{}, false, New)),
    Hosts = fun(Count, IsSingle) ->
                    lists:foldl(fun(N, {ok, Before}) -> requests(1, #{integer_to_binary(N) => 1}, IsSingle, Before);
                                   (_, Refusal) -> Refusal
                                end, {ok, New}, lists:seq(1, Count))
            end,
    ?assertMatch({ok, _}, Hosts(256, false)),
    ?assertMatch({refused, 503, _}, Hosts(257, false)),
    ?assertMatch({refused, 503, _}, Hosts(193, true)).

answered_queries_do_not_count_test() ->
    {ok, Reading} = ping_muc_limits:start_reading(self(), ping_muc_limits:new()),
    {ok, Full} = ping_muc_limits:admit(self(), #{<<"a">> => 1000}, false, Reading),
    ?assertMatch({refused, 429, _}, requests(1, #{<<"a">> => 1}, false, Full)),
    ?assertMatch({ok, _}, requests(1, #{<<"a">> => 1}, false, ping_muc_limits:answered(self(), <<"a">>, Full))),
    ?assertMatch({ok, _}, requests(1, #{<<"a">> => 1}, false, ping_muc_limits:finish(self(), Full))).

%% Answers: against the samples of the contract, which are in another notation

answers_test() ->
    #xmlel{children = Children} = fxml_stream:parse_element(samples("stanzas-answer.xml")),
    Samples = maps:from_list([{fxml:get_tag_attr_s(<<"id">>, Child), Child} || #xmlel{} = Child <- Children]),
    Item = fun(Id) ->
                   #xmlel{name = Name} = Sample = maps:get(Id, Samples),
                   #{kind => ping, name => Name, id => Id, from => fxml:get_tag_attr_s(<<"to">>, Sample),
                     to => fxml:get_tag_attr_s(<<"from">>, Sample)}
           end,
    Error = fun(Id, Kind, Extras) -> ping_muc_answers:server_error(Item(Id), Kind, ?HOST, Extras) end,
    Closed = 1795355002123456,
    Made = [{<<"ping-result">>, ping_muc_answers:result(Item(<<"ping-result">>))},
            {<<"ping-proof">>, ping_muc_answers:proof(Item(<<"ping-proof">>))},
            {<<"ping-remote-server-timeout">>,
             ping_muc_answers:no_answer(Item(<<"ping-remote-server-timeout">>), ?HOST, undefined, Closed)},
            {<<"ping-no-answer">>,
             ping_muc_answers:no_answer(Item(<<"ping-no-answer">>), ?HOST, {false, true}, Closed)},
            {<<"ping-recipient-unavailable">>,
             Error(<<"ping-recipient-unavailable">>, {cancel, 'recipient-unavailable'}, [])},
            {<<"ping-policy-violation">>,
             Error(<<"ping-policy-violation">>, {modify, 'policy-violation'}, [<<"A ping must name a join">>])},
            {<<"notice-conflict">>, Error(<<"notice-conflict">>, {cancel, conflict}, [])},
            {<<"notice-rejoining">>, Error(<<"notice-rejoining">>, {cancel, conflict}, [{<<"rejoining">>, []}])},
            {<<"reentry-success">>, ping_muc_answers:entered(Item(<<"reentry-success">>), false)},
            {<<"reentry-missed">>, ping_muc_answers:entered(Item(<<"reentry-missed">>), true)},
            {<<"reentry-remote-server-not-found">>,
             Error(<<"reentry-remote-server-not-found">>, {cancel, 'remote-server-not-found'},
                   ping_muc_answers:closed(Closed))}],
    [?assertEqual(plain(maps:get(Id, Samples)), plain(fxml_stream:parse_element(iolist_to_binary(Text))))
     || {Id, Text} <- Made].

%% An element without the order of its attributes and the white space between its children
plain(#xmlel{name = Name, attrs = Attrs, children = Children}) ->
    {Name, lists:sort(Attrs), [plain(Child) || Child <- Children, not is_blank(Child)]};
plain({xmlcdata, Text}) ->
    Text.

is_blank({xmlcdata, Text}) -> string:trim(Text) =:= <<>>;
is_blank(_) -> false.
