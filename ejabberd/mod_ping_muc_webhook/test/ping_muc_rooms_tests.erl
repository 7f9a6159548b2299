%%% What is kept about rooms: history and holds of re-entries (rule 10 in docs/rules.md), allowances of checks (rule 11)
-module(ping_muc_rooms_tests).

-include_lib("eunit/include/eunit.hrl").
-include("xmpp.hrl").

-define(ROOM, <<"room@muc.host">>).

%% History

message(Id, Body, Els) ->
    #message{id = Id, type = groupchat, from = jid:make(<<"room">>, <<"muc.host">>, <<"nurse">>),
             body = [#text{data = Body}], sub_els = Els}.

own_id(Id) ->
    #stanza_id{by = jid:make(<<"room">>, <<"muc.host">>), id = Id}.

line_test() ->
    Line = ping_muc_history:line(message(<<"a">>, <<"Madam!">>, [own_id(<<"7">>)])),
    ?assertMatch(#{own := <<"id 7">>, age := none}, Line),
    %% The same line, sent again by a room that keeps no ids of its own
    Again = ping_muc_history:line(message(<<"a">>, <<"Madam!">>, [])),
    ?assertMatch(#{own := none}, Again),
    ?assertEqual(maps:get(other, Line), maps:get(other, Again)),
    %% Another room cannot name it.
    Foreign = #stanza_id{by = jid:make(<<"other">>, <<"muc.host">>), id = <<"8">>},
    ?assertMatch(#{own := none}, ping_muc_history:line(message(<<"a">>, <<"Madam!">>, [Foreign]))),
    ?assertEqual(none, ping_muc_history:line(message(<<"a">>, <<"x">>, [#hint{type = 'no-store'}]))),
    Subject = (message(<<"a">>, <<>>, []))#message{body = [], subject = [#text{data = <<"Verona">>}]},
    ?assertEqual(none, ping_muc_history:line(Subject)),
    ?assert(ping_muc_history:ends(Subject)),
    ?assertNot(ping_muc_history:ends(Subject#message{body = [#text{data = <<"x">>}]})).

%% What a room sends is not always what the schemas allow.
malformed_test() ->
    Delay = #xmlel{name = <<"delay">>, attrs = [{<<"xmlns">>, ?NS_DELAY}, {<<"stamp">>, <<"yesterday">>}]},
    ?assertMatch(#{age := 0}, ping_muc_history:line(message(<<"a">>, <<"x">>, [Delay]))),
    X = fxml_stream:parse_element(<<"<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='boss' "
                                    "role='none'/><status code='110'/><status code='x'/></x>">>),
    From = jid:make(<<"room">>, <<"muc.host">>, <<"nurse">>),
    ?assertMatch(#{self := true, codes := [110], occupant := true},
                 ping_muc_stanzas:facts(#presence{from = From, sub_els = [X]})).

heard(Moments) ->
    lists:foldl(fun({Name, Now}, Lines) ->
                        ping_muc_history:heard(#{own => none, other => Name, age => none}, Now, Lines)
                end, [], Moments).

lines_test() ->
    ?assertEqual([{100, <<"b">>}, {110, <<"c">>}], heard([{<<"a">>, 96}, {<<"b">>, 100}, {<<"c">>, 110}])),
    Many = heard([{integer_to_binary(N), 100} || N <- lists:seq(1, 25)]),
    ?assertEqual(20, length(Many)),
    ?assertEqual(<<"25">>, ping_muc_history:newest(Many)),
    ?assertEqual(<<"7">>, ping_muc_history:had(#{own => none, other => <<"7">>, age => 5}, Many)),
    ?assertEqual(none, ping_muc_history:had(#{own => none, other => <<"1">>, age => 5}, Many)).

seconds_test() ->
    %% From ten seconds before the newest line; without lines, since the session entered
    ?assertEqual(31, ping_muc_history:seconds(heard([{<<"a">>, 100}]), 50, 120)),
    ?assertEqual(71, ping_muc_history:seconds([], 50, 120)),
    %% With twenty lines there may have been others, which would come twice.
    ?assertEqual(21, ping_muc_history:seconds(heard([{<<N>>, 100} || N <- lists:seq(1, 20)]), 50, 120)).

%% Holds

facts(Type, IsSelf, Id) ->
    #{id => Id, room => ?ROOM, nick => <<"juliet">>, type => Type, self => IsSelf}.

held(Known) ->
    ping_muc_holds:begins(?ROOM, #{ids => [<<"ours">>], nick => <<"juliet">>, known => Known, admitted => false},
                          ping_muc_holds:new()).

holds_test() ->
    ?assertMatch({true, _}, ping_muc_holds:takes_presence(facts(available, true, <<>>), held(true))),
    ?assert(ping_muc_holds:takes_message(?ROOM, held(true))),
    ?assertMatch({true, _}, ping_muc_holds:takes_presence(facts(error, false, <<>>), held(true))),
    %% The end of it is for a client that does not know yet.
    {true, After} = ping_muc_holds:takes_presence(facts(unavailable, true, <<>>), held(true)),
    ?assert(ping_muc_holds:is_empty(After)),
    ?assertMatch({false, _}, ping_muc_holds:takes_presence(facts(unavailable, true, <<>>), held(false))),
    Other = (facts(available, true, <<>>))#{room := <<"a@b">>},
    ?assertMatch({false, _}, ping_muc_holds:takes_presence(Other, held(true))).

user_enters_test() ->
    Again = ping_muc_holds:user_enters(?ROOM, held(true)),
    ?assertNot(ping_muc_holds:takes_message(?ROOM, Again)),
    {true, Admitted} = ping_muc_holds:takes_presence(facts(available, true, <<"ours">>), Again),
    %% Our end, then the user's own entry
    {true, Ended} = ping_muc_holds:takes_presence(facts(unavailable, true, <<>>), Admitted),
    ?assert(ping_muc_holds:is_empty(Ended)),
    {false, Theirs} = ping_muc_holds:takes_presence(facts(available, true, <<"theirs">>), Again),
    ?assert(ping_muc_holds:is_empty(Theirs)),
    ?assertMatch({false, _}, ping_muc_holds:takes_presence(facts(error, false, <<"theirs">>), Again)),
    ?assertMatch({true, _}, ping_muc_holds:takes_presence(facts(error, false, <<"ours">>), Again)).

%% Allowances

spent(Accounts, Count) ->
    ping_muc_allowances:spend(Accounts, Count, 0, ping_muc_allowances:new()).

allowances_test() ->
    Room = ping_muc_allowances:of_room(?ROOM, <<"juliet@example.net/phone">>),
    ?assertEqual([{host, <<"muc.host">>}, {user, <<"juliet@example.net">>}, {all, <<>>}], Room),
    ?assertEqual(0, ping_muc_allowances:wait(Room, 0, spent(Room, 9))),
    ?assertEqual(600.0, ping_muc_allowances:wait(Room, 0, spent(Room, 10))), % six an hour for a host
    ?assertEqual(0, ping_muc_allowances:wait(Room, 600, spent(Room, 10))),
    Host = ping_muc_allowances:of_host(<<"muc.host">>),
    ?assertEqual(1800.0, ping_muc_allowances:wait(Host, 0, spent(Host, 1))), % two an hour
    ?assertEqual(300.0, ping_muc_allowances:wait([{all, <<>>}], 0, spent([{all, <<>>}], 120))),
    %% Three quarters are given back, and what is full again is dropped.
    Back = ping_muc_allowances:spend(Room, -0.75, 0, spent(Room, 10)),
    ?assertEqual(150.0, ping_muc_allowances:wait(Room, 0, Back)),
    ?assertEqual(ping_muc_allowances:new(), ping_muc_allowances:sweep(100000, Back)).
