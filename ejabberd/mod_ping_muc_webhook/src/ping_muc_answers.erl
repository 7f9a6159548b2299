%%% Answers of the stanza API, as text: what a room answered, or what this server has to say in its place
-module(ping_muc_answers).

-export([root/2, server_error/4, result/1, proof/1, entered/2, room_error/3, no_answer/4, closed/1]).

-export_type([extra/0]).

-include("xmpp.hrl").

-define(NS_PING_MUC, "urn:ping-muc:0").
%% Bytes: of a condition; of a room's answer that is passed on unchanged; otherwise of its text
-define(MAX_ID, 128).
-define(MAX_ANSWER, 8192).
-define(MAX_ANSWER_TEXT, 1024).

%% An element in our namespace within an error, and its attributes
-type extra() :: {binary(), [{binary(), binary()}]}.
-type item() :: ping_muc_contract:item().

%% The whole answer. About: what is known about the host
-spec root([{binary(), binary()}], [iodata()]) -> iodata().
root(About, Answers) ->
    ["<xmpp", attributes(About), ">", Answers, "</xmpp>"].

%% Almost every answer is a result. So it is not built as an element.
-spec result(item()) -> iodata().
result(Item) ->
    ["<iq type='result'", addresses(Item), "/>"].

%% The room has sent the session what only its occupants get, over a stream that began after the close in question.
-spec proof(item()) -> iodata().
proof(Item) ->
    ["<iq type='result'", addresses(Item), "><proof xmlns='" ?NS_PING_MUC "'/></iq>"].

%% The session is in the room. IsMissed: messages are missing from the history that it got.
-spec entered(item(), boolean()) -> iodata().
entered(Item, IsMissed) ->
    ["<presence", addresses(Item), "><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x>",
     ["<reentry xmlns='" ?NS_PING_MUC "' missed='yes'/>" || IsMissed], "</presence>"].

%% This server's own error. Extras: a text, and elements in our namespace
-spec server_error(item(), {atom(), atom()}, binary(), [binary() | extra()]) -> iodata().
server_error(#{name := Name} = Item, {Type, Condition}, Host, Extras) ->
    ["<", Name, " type='error'", addresses(Item), "><error type='", atom_to_binary(Type, utf8), "' by='",
     ping_muc_text:escape(Host), "'>", condition(atom_to_binary(Condition, utf8)), [extra(Extra) || Extra <- Extras],
     "</error></", Name, ">"].

%% No answer in time, or a bounce of this server: remote-server-timeout. Silence: whether a stream broke, and whether
%% the host was heard meanwhile; undefined: the host cannot be reached. Closed: the newest close, 0 if none is known
-spec no_answer(item(), binary(), {boolean(), boolean()} | undefined, non_neg_integer()) -> iodata().
no_answer(Item, Host, Silence, Closed) ->
    Extra = case Silence of
                undefined ->
                    [];
                {IsBroken, IsHeard} ->
                    Streams = if IsBroken -> <<"broken">>; true -> <<"kept">> end,
                    [{<<"no-answer">>, [{<<"streams">>, Streams}, {<<"heard">>, atom_to_binary(IsHeard, utf8)}]}]
            end,
    server_error(Item, {wait, 'remote-server-timeout'}, Host, Extra ++ closed(Closed)).

%% What an error says of the newest close; 0: none is known
-spec closed(non_neg_integer()) -> [extra()].
closed(0) -> [];
closed(At) -> [{<<"closed">>, [{<<"at">>, integer_to_binary(At)}]}].

%% A room's error, under the id and the addresses of the request
-spec room_error(item(), stanza(), binary()) -> iodata().
room_error(#{kind := Kind, name := Name} = Item, Stanza, Host) ->
    #xmlel{children = Children} = xmpp:encode(Stanza, <<"jabber:client">>),
    %% Some rooms return what was sent to them. The session's presence is not for the receiver.
    Kept = [without_claim(Child, Host) || #xmlel{name = Tag} = Child <- Children,
                                         Kind =/= reentry orelse Tag =:= <<"error">>],
    Whole = iolist_to_binary(["<", Name, " type='error'", addresses(Item), ">",
                              [fxml:element_to_binary(Child) || Child <- Kept], "</", Name, ">"]),
    case byte_size(Whole) =< ?MAX_ANSWER of
        true -> Whole;
        false -> short_error(Item, xmpp:get_error(Stanza))
    end.

%% Only this server says that an error is its own (by).
without_claim(#xmlel{name = <<"error">>, attrs = Attrs} = Error, Host) ->
    Error#xmlel{attrs = [Attr || {Name, Value} = Attr <- Attrs,
                                not (Name =:= <<"by">> andalso Value =:= Host),
                                not (Name =:= <<"xmlns">> andalso is_stream_namespace(Value))]};
without_claim(#xmlel{attrs = Attrs} = Element, _) ->
    Element#xmlel{attrs = [Attr || {Name, Value} = Attr <- Attrs,
                                  not (Name =:= <<"xmlns">> andalso is_stream_namespace(Value))]}.

is_stream_namespace(Xmlns) ->
    lists:member(Xmlns, [<<"jabber:client">>, <<"jabber:server">>]).

short_error(#{name := Name} = Item, Error) ->
    {Type, Condition, Text} = parts(Error),
    ["<", Name, " type='error'", addresses(Item), "><error type='", atom_to_binary(Type, utf8), "'>",
     condition(Condition), [extra(ping_muc_text:cut(Text, ?MAX_ANSWER_TEXT)) || Text =/= <<>>],
     "</error></", Name, ">"].

parts(#stanza_error{type = Type, reason = Reason, text = Texts}) ->
    {Type, condition_of(Reason), xmpp:get_text(Texts)};
parts(_) ->
    {cancel, <<"undefined-condition">>, <<>>}.

condition_of(Reason) when is_atom(Reason) -> binary:part(atom_to_binary(Reason, utf8), 0,
                                                         min(?MAX_ID, byte_size(atom_to_binary(Reason, utf8))));
condition_of(Reason) when is_tuple(Reason) -> atom_to_binary(element(1, Reason), utf8).

addresses(#{id := Id, from := From, to := To}) ->
    attributes([{<<"id">>, Id}, {<<"from">>, To}, {<<"to">>, From}]).

attributes(Attributes) ->
    [[" ", Name, "='", ping_muc_text:escape(Value), "'"] || {Name, Value} <- Attributes].

condition(Condition) ->
    ["<", Condition, " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"].

extra({Name, Attributes}) ->
    ["<", Name, " xmlns='" ?NS_PING_MUC "'", attributes(Attributes), "/>"];
extra(Text) ->
    ["<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>", ping_muc_text:escape(Text), "</text>"].
