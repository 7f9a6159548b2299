%%% History: which messages a session has had from a room, so that after a re-entry it gets those that it missed, and no
%%% message twice
%%%
%%% For each join, the newest lines: the messages that rooms send again. Of each, when it arrived, and names that
%%% identify it. The text is not stored, unless a message has no id (see names/1). Times are monotonic seconds.
-module(ping_muc_history).

-export([line/1, ends/1, heard/3, had/2, seconds/3, newest/1]).

-export_type([line/0, lines/0]).

-include("xmpp.hrl").

%% The requested history begins somewhat before the newest line, because the request takes time to reach the room, and
%% so does a line to arrive here. Lines that the session had are known by name, and held back.
-define(KEEP, 10). % seconds before the newest line at which the requested history begins
-define(ROUNDED, 3). % seconds by which it may begin earlier: whole seconds here, and in the room's clock
-define(MAX_LINES, 20). % of one join: as many as rooms keep unless configured otherwise
-define(MAX_NAME, 128). % bytes
-define(NS_ENCRYPTION, <<"urn:xmpp:eme:0">>).

%% own: the room's own id of a line (XEP-0359), if it has one. other: made of what else does not change when it is sent
%% again. age: seconds since it was sent, if it is delayed
-type line() :: #{own := binary() | none, other := binary(), age := number() | none}.
-type lines() :: [{number(), binary()}]. % the oldest first

%% A message of a room, if it is one of those that rooms send again
-spec line(message()) -> line() | none.
line(#message{} = Message) ->
    case is_line(Message) of
        true ->
            {Own, Other} = names(Message),
            #{own => Own, other => Other, age => age(Message)};
        false ->
            none
    end.

is_line(#message{body = Body} = Message) ->
    (Body =/= [] orelse has(Message, <<"encryption">>, ?NS_ENCRYPTION))
        andalso not has(Message, <<"no-store">>, ?NS_HINTS)
        andalso not has(Message, <<"no-permanent-store">>, ?NS_HINTS).

has(Message, Name, Xmlns) ->
    lists:any(fun(Element) -> xmpp:get_name(Element) =:= Name andalso xmpp:get_ns(Element) =:= Xmlns end,
              xmpp:get_els(Message)).

%% Whether a message is the subject, which ends the history (XEP-0045 §7.2.15)
-spec ends(message()) -> boolean().
ends(#message{subject = Subject} = Message) ->
    Subject =/= [] andalso not is_line(Message).

names(#message{id = Id, body = Body, from = #jid{lresource = Nick} = From} = Message) ->
    Room = jid:tolower(jid:remove_resource(From)),
    Own = [Name || #stanza_id{by = By, id = Name} <- xmpp:get_subtags(Message, #stanza_id{by = #jid{}}),
                   By =/= undefined, jid:tolower(By) =:= Room],
    Text = xmpp:get_text(Body),
    Short = case Id of <<>> -> Text; _ -> Id end,
    Other = iolist_to_binary([cut(Short), 0, integer_to_binary(byte_size(Text)), 0, Nick]),
    {case Own of [] -> none; _ -> <<"id ", (cut(lists:last(Own)))/binary>> end, Other}.

cut(Text) ->
    binary:part(Text, 0, min(?MAX_NAME, byte_size(Text))).

age(Message) ->
    case xmpp:get_subtag(Message, #delay{stamp = {0, 0, 0}}) of
        #delay{stamp = Stamp} -> max(0, timer:now_diff(os:timestamp(), Stamp) / 1.0e6);
        false -> case ping_muc_stanzas:is_delayed(Message) of
                     true -> 0; % since when cannot be decoded
                     false -> none
                 end
    end.

%% The lines with a new one
-spec heard(line(), number(), lines()) -> lines().
heard(#{own := Own, other := Other, age := Age}, Now, Lines) ->
    Sent = if Age =:= none -> Now; true -> Now - Age end,
    %% In the order in which they came
    Latest = case Lines of [] -> Sent; _ -> max(Sent, element(1, lists:last(Lines))) end,
    All = Lines ++ [{Latest, if Own =:= none -> Other; true -> Own end}],
    Recent = lists:dropwhile(fun({Moment, _}) -> Moment < Latest - ?KEEP - ?ROUNDED end, All),
    lists:nthtail(max(0, length(Recent) - ?MAX_LINES), Recent).

%% The name of a line that the session had; none if it is new
-spec had(line(), lines()) -> binary() | none.
had(#{own := Own, other := Other}, Lines) ->
    case [Name || {_, Name} <- Lines, Name =:= Own orelse Name =:= Other] of
        [Name | _] -> Name;
        [] -> none
    end.

%% How many seconds back the room's history must reach, so that it begins before the first line that was missed. From:
%% since when lines are known
-spec seconds(lines(), number(), number()) -> pos_integer().
seconds(Lines, From, Now) ->
    Begin = case Lines of
                [] -> From;
                [{First, _} | _] when length(Lines) >= ?MAX_LINES ->
                    %% There may have been earlier lines, which are no longer stored and would come twice.
                    min(First + ?ROUNDED, element(1, lists:last(Lines)));
                _ -> element(1, lists:last(Lines)) - ?KEEP
            end,
    max(1, ceil(Now - Begin) + 1).

-spec newest(lines()) -> binary() | none.
newest([]) -> none;
newest(Lines) -> element(2, lists:last(Lines)).
