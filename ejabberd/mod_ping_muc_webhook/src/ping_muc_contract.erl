%%% Contract: parses requests to the stanza API, and checks them against what protocol/ permits
-module(ping_muc_contract).

-export([version/0, parse/1, check/3]).

-export_type([item/0]).

-include("xmpp.hrl").

-define(NS_PING_MUC, <<"urn:ping-muc:0">>).

-define(VERSION, <<"0.1.0">>). % of the contract that this module implements: info.version in protocol/openapi.yaml
-define(MAX_MARKS, 30000). % in a request: characters that cost a parser time; a thousand notices have 24,000
-define(MAX_STANZAS, 1000). % in a request
-define(MAX_ID, 128). % bytes
-define(MAX_JID, 3071).
-define(MAX_REASON, 1024).

%% What a stanza asks for. name, id, from and to are the stanza's own. full: the session. occupant, room, nick, remote:
%% in which room, and as whom. occupants: what the room has said. kind refused: it is not permitted, and reason says
%% why.
-type item() :: #{kind := ping | disco | notice | reentry | refused, name := binary(), id := binary(),
                  from := binary(), to := binary(), full => binary(), user => {binary(), binary(), binary()},
                  occupant => binary(), room => binary(), nick => binary(), remote => binary(),
                  at => non_neg_integer(), close => non_neg_integer() | undefined, reason => binary(),
                  occupants => non_neg_integer() | unknown}.

-spec version() -> binary().
version() ->
    ?VERSION.

%% Returns the stanzas of a request and its time-out in seconds, or what is wrong with the whole request.
-spec parse(binary()) -> {ok, [xmlel()], pos_integer()} | {error, binary()}.
parse(Body) ->
    case ping_muc_text:is_utf8(Body) andalso binary:match(Body, <<0>>) =:= nomatch of
        false ->
            {error, <<"the body is not UTF-8">>};
        true ->
            case ping_muc_text:count(Body, "<&=\r\n") > ?MAX_MARKS of
                true -> {error, <<"the body has too much markup">>};
                false -> parse_xml(Body)
            end
    end.

parse_xml(Body) ->
    case has_forbidden(Body) of
        true ->
            {error, <<"the body is not XML as XMPP has it">>};
        false ->
            case fxml_stream:parse_element(Body) of
                #xmlel{} = Root -> check_root(resolve(Root, <<>>));
                _ -> {error, <<"the body is not XML as XMPP has it">>}
            end
    end.

%% Comments, processing instructions and document types, which could define entities that expand without limit. An XML
%% declaration is none of these.
has_forbidden(<<"<?xml ", Rest/binary>>) ->
    has_forbidden(Rest);
has_forbidden(Body) ->
    binary:match(Body, <<"<?">>) =/= nomatch
        orelse lists:any(fun({At, _}) -> not is_cdata(binary:part(Body, At, min(9, byte_size(Body) - At))) end,
                         binary:matches(Body, <<"<!">>)).

is_cdata(Text) ->
    Text =:= <<"<![CDATA[">>.

%% Gives each element the namespace that it has, as its xmlns; none if it has none.
resolve(#xmlel{attrs = Attrs, children = Children} = Element, Inherited) ->
    Own = proplists:get_value(<<"xmlns">>, Attrs, Inherited),
    Others = [Attr || {Name, _} = Attr <- Attrs, Name =/= <<"xmlns">>],
    Element#xmlel{attrs = [{<<"xmlns">>, Own} || Own =/= <<>>] ++ Others,
                  children = [case Child of #xmlel{} -> resolve(Child, Own); _ -> Child end || Child <- Children]}.

check_root(#xmlel{name = <<"xmpp">>} = Root) ->
    Stanzas = elements(Root),
    case {is_in_our_namespace(Root), timeout(attr(<<"timeout">>, Root))} of
        {false, _} ->
            {error, <<"the root must be <xmpp>">>};
        {true, error} ->
            {error, <<"timeout must be a whole number from 1 to 300">>};
        {true, _} when length(Stanzas) > ?MAX_STANZAS ->
            {error, <<"more than 1000 stanzas">>};
        {true, Timeout} ->
            case check_ids(Stanzas, 1, #{}) of
                ok -> {ok, Stanzas, Timeout};
                Error -> Error
            end
    end;
check_root(_) ->
    {error, <<"the root must be <xmpp>">>}.

timeout(Text) ->
    case number(Text, 3) of
        Timeout when is_integer(Timeout), Timeout >= 1, Timeout =< 300 -> Timeout;
        _ -> error
    end.

%% A whole number of at most so many digits; undefined if the text is none
number(Text, Digits) when is_binary(Text), byte_size(Text) > 0, byte_size(Text) =< Digits ->
    case << <<C>> || <<C>> <= Text, C >= $0, C =< $9 >> of
        Text -> binary_to_integer(Text);
        _ -> undefined
    end;
number(_, _) ->
    undefined.

check_ids([#xmlel{name = Name} = Stanza | Rest], Index, Seen) ->
    Id = attr(<<"id">>, Stanza),
    IsStanza = is_in_our_namespace(Stanza) andalso lists:member(Name, [<<"iq">>, <<"presence">>, <<"message">>]),
    if
        not IsStanza -> wrong("child ~b is not a stanza", [Index]);
        Id =:= undefined; Id =:= <<>>; byte_size(Id) > ?MAX_ID ->
            wrong("stanza ~b needs an id of 1 to ~b bytes", [Index, ?MAX_ID]);
        is_map_key(Id, Seen) -> wrong("stanza ~b has the id of an earlier one", [Index]);
        true -> check_ids(Rest, Index + 1, Seen#{Id => true})
    end;
check_ids([], _, _) ->
    ok.

wrong(Format, Arguments) ->
    {error, iolist_to_binary(io_lib:format(Format, Arguments))}.

is_in_our_namespace(Element) ->
    lists:member(attr(<<"xmlns">>, Element), [undefined, <<>>, ?NS_CLIENT]).

%% What a stanza asks for. IsLocal: says whether a host is local.
-spec check(xmlel(), binary(), fun((binary()) -> boolean())) -> item().
check(#xmlel{name = Name} = Stanza, Host, IsLocal) ->
    Text = fun(Attr) -> case attr(Attr, Stanza) of undefined -> <<>>; Value -> Value end end,
    Head = #{name => Name, id => Text(<<"id">>), from => Text(<<"from">>), to => Text(<<"to">>)},
    Result = case {Name, attr(<<"type">>, Stanza)} of
                 {<<"iq">>, <<"get">>} -> check_query(Stanza, addresses(from, Head, Host, IsLocal));
                 {<<"presence">>, <<"unavailable">>} -> check_notice(Stanza, addresses(to, Head, Host, IsLocal));
                 {<<"presence">>, undefined} -> check_reentry(Stanza, addresses(from, Head, Host, IsLocal));
                 _ -> {error, <<"only <iq type='get'>, <presence> and <presence type='unavailable'> are taken">>}
             end,
    case Result of
        {ok, Item} -> maps:merge(Head, Item);
        {error, Why} -> Head#{kind => refused, reason => Why}
    end.

addresses(UserSide, #{from := From, to := To}, Host, IsLocal) ->
    {Full, Occupant} = case UserSide of from -> {From, To}; to -> {To, From} end,
    case {split(Full), split(Occupant)} of
        {{User, Host, Resource}, {Node, Remote, Nick}} when User =/= <<>>, Resource =/= <<>>, Node =/= <<>> ->
            case IsLocal(Remote) of
                true -> no_room();
                false -> {ok, #{full => Full, user => {User, Host, Resource}, occupant => Occupant,
                                room => <<Node/binary, $@, Remote/binary>>, nick => Nick, remote => Remote}}
            end;
        {{User, Host, Resource}, _} when User =/= <<>>, Resource =/= <<>> ->
            no_room();
        _ ->
            {error, <<"the user must be a normalised full JID of ", Host/binary>>}
    end.

no_room() ->
    {error, <<"the room must be a normalised JID of a room on a remote host">>}.

%% The parts of an address; error if it is not normalised
split(Address) when byte_size(Address) =< ?MAX_JID ->
    try jid:tolower(jid:decode(Address)) of
        Parts ->
            case jid:encode(Parts) of
                Address -> Parts;
                _ -> error
            end
    catch
        _:_ -> error
    end;
split(_) ->
    error.

check_query(_, {error, _} = Error) ->
    Error;
check_query(Stanza, {ok, #{nick := Nick} = Item}) ->
    case elements(Stanza) of
        [#xmlel{name = <<"query">>} = Query | Others] ->
            IsPlain = Nick =:= <<>> andalso Others =:= [] andalso elements(Query) =:= []
                andalso attr(<<"node">>, Query) =:= undefined,
            case attr(<<"xmlns">>, Query) of
                ?NS_DISCO_INFO when IsPlain -> {ok, Item#{kind => disco}};
                ?NS_DISCO_INFO -> {error, <<"disco#info goes to a room's bare JID, alone and without a node">>};
                _ -> no_query()
            end;
        [#xmlel{name = <<"ping">>} = Ping | _] ->
            case {attr(<<"xmlns">>, Ping), elements(Ping), check_join(Stanza, Item)} of
                {?NS_PING, [], {ok, Named}} -> {ok, Named#{kind => ping}};
                {?NS_PING, _, {error, _} = Error} -> Error;
                {?NS_PING, _, _} -> {error, <<"a ping is empty">>};
                _ -> no_query()
            end;
        _ ->
            no_query()
    end.

no_query() ->
    {error, <<"an <iq> must hold urn:xmpp:ping or disco#info">>}.

%% All but disco#info name an occupant and a join, beside one other element.
check_join(Stanza, #{nick := Nick} = Item) ->
    Elements = elements(Stanza),
    Joins = [Element || #xmlel{name = <<"join">>} = Element <- Elements, attr(<<"xmlns">>, Element) =:= ?NS_PING_MUC],
    At = case Joins of [Join | _] -> number(attr(<<"at">>, Join), 16); [] -> undefined end,
    case is_integer(At) andalso Nick =/= <<>> andalso length(Elements) =:= 2 of
        true ->
            {ok, Item#{at => At, close => number(attr(<<"close">>, hd(Joins)), 16)}};
        false ->
            {error, <<"all but disco#info name an occupant, and its join in <join xmlns='urn:ping-muc:0' at='...'/>">>}
    end.

check_reentry(_, {error, _} = Error) ->
    Error;
check_reentry(Stanza, {ok, Item}) ->
    case check_join(Stanza, Item) of
        {ok, Named} ->
            case child(<<"x">>, ?NS_MUC, Stanza) of
                #xmlel{attrs = [_], children = []} -> {ok, Named#{kind => reentry}};
                _ -> {error, <<"a re-entry holds an empty <x xmlns='http://jabber.org/protocol/muc'/>">>}
            end;
        Error ->
            Error
    end.

check_notice(_, {error, _} = Error) ->
    Error;
check_notice(Stanza, {ok, Item}) ->
    case {check_join(Stanza, Item), child(<<"x">>, ?NS_MUC_USER, Stanza)} of
        {{error, _} = Error, _} ->
            Error;
        {_, undefined} ->
            {error, <<"a notice holds muc#user">>};
        {{ok, Named}, X} ->
            case check_x(elements(X), [], []) of
                {ok, Reason} when byte_size(Reason) =< ?MAX_REASON -> {ok, Named#{kind => notice, reason => Reason}};
                {ok, _} -> {error, <<"a notice's reason has at most 1024 bytes">>};
                Error -> Error
            end
    end.

check_x([#xmlel{name = Name} = Tag | Rest], Reasons, Codes) ->
    Code = attr(<<"code">>, Tag),
    case {attr(<<"xmlns">>, Tag), Name} of
        {?NS_MUC_USER, <<"item">>} ->
            case check_item(Tag) of
                {ok, Reason} -> check_x(Rest, [Reason | Reasons], Codes);
                Error -> Error
            end;
        {?NS_MUC_USER, <<"status">>} when Code =/= undefined ->
            case elements(Tag) =:= [] andalso not lists:member(Code, Codes) of
                true -> check_x(Rest, Reasons, [Code | Codes]);
                false -> {error, <<"a notice's <x> takes one <item> and one <status> of each code">>}
            end;
        {?NS_MUC_USER, _} ->
            {error, <<"a notice's <x> takes one <item> and one <status> of each code">>};
        _ ->
            {error, <<"a notice's <x> takes no other namespace">>}
    end;
check_x([], [Reason], Codes) ->
    case lists:sort(Codes) of
        [<<"110">>, <<"330">>, <<"333">>] -> {ok, Reason};
        _ -> {error, <<"a notice has one <item> and the statuses 110, 330 and 333">>}
    end;
check_x([], _, _) ->
    {error, <<"a notice has one <item> and the statuses 110, 330 and 333">>}.

check_item(#xmlel{attrs = Attrs} = Item) ->
    case {lists:sort([Attr || {Name, _} = Attr <- Attrs, Name =/= <<"xmlns">>]), elements(Item)} of
        {[{<<"affiliation">>, <<"none">>}, {<<"role">>, <<"none">>}], [#xmlel{name = <<"reason">>} = Reason]} ->
            case attr(<<"xmlns">>, Reason) =:= ?NS_MUC_USER andalso elements(Reason) =:= [] of
                true -> {ok, fxml:get_tag_cdata(Reason)};
                false -> wrong_item()
            end;
        _ ->
            wrong_item()
    end.

wrong_item() ->
    {error, <<"a notice's <item> has affiliation and role none, no other attribute, and one <reason>">>}.

elements(#xmlel{children = Children}) ->
    [Child || #xmlel{} = Child <- Children].

child(Name, Xmlns, Element) ->
    case [Child || #xmlel{name = N} = Child <- elements(Element), N =:= Name, attr(<<"xmlns">>, Child) =:= Xmlns] of
        [Child | _] -> Child;
        [] -> undefined
    end.

attr(Name, #xmlel{attrs = Attrs}) ->
    proplists:get_value(Name, Attrs).
