%%% Outcomes: what a request is told about an item, once a room has answered, this server has in its place, or the time
%%% is over
-module(ping_muc_outcomes).

-export([reply/3, query/4, reentry/4, nothing/2]).

-export_type([outcome/0]).

-include("xmpp.hrl").

%% answer: the text of the answer. in_room: the same, and the session is in the room. silence: the same, and the room
%% has not answered. ignore: it is no answer. perform: the item is to be carried out now.
-type outcome() :: {answer | in_room | silence, iodata()} | ignore | {perform, item()}.
-type item() :: ping_muc_contract:item().
-type context() :: ping_muc_host:context().

%% A session's process has replied at once, or it has ended (gone).
-spec reply(ping_muc_actions:answer() | gone, item(), context()) -> outcome().
reply(delivered, _, _) ->
    {answer, []};
reply(proven, Item, _) ->
    {in_room, ping_muc_answers:proof(Item)};
reply(gone, Item, Context) ->
    own_error(Item, {cancel, 'recipient-unavailable'}, [], Context);
reply(conflict, Item, Context) ->
    own_error(Item, {cancel, conflict}, [], Context);
reply(rejoining, Item, Context) ->
    own_error(Item, {cancel, conflict}, [{<<"rejoining">>, []}], Context);
reply(unsupported, Item, Context) ->
    own_error(Item, {cancel, 'feature-not-implemented'}, [], Context);
reply(too_large, Item, Context) ->
    own_error(Item, {wait, 'resource-constraint'}, [], Context);
reply(full, Item, Context) ->
    own_error(Item, {wait, 'unexpected-request'}, [], Context).

own_error(Item, Error, Extras, #{host := Host}) ->
    {answer, ping_muc_answers:server_error(Item, Error, Host, Extras)}.

%% A query has been answered.
-spec query(iq() | timeout, ping_muc_actions:sent(), item(), context()) -> outcome().
query(timeout, Sent, Item, Context) ->
    silence(Item, Sent, Context);
query(#iq{type = Type, from = From} = Answer, Sent, Item, #{host := Host} = Context) ->
    case {jid:encode(jid:tolower(From)) =:= asked(Item), ping_muc_stanzas:began(Answer), Item} of
        {false, _, _} -> ignore;
        {true, undefined, _} when Type =:= error -> bounced(xmpp:get_error(Answer), Sent, Item, Context);
        {true, undefined, _} -> silence(Item, Sent, Context);
        %% This server has not seen all occupants, but the room knows their number (XEP-0045 §15.6.4).
        {true, _, #{kind := reentry}} -> {perform, Item#{occupants => ping_muc_stanzas:occupants(Answer)}};
        {true, _, _} when Type =:= error -> {answer, ping_muc_answers:room_error(Item, Answer, Host)};
        {true, _, #{kind := ping}} -> {in_room, ping_muc_answers:result(Item)};
        {true, _, _} -> {answer, ping_muc_answers:result(Item)}
    end.

%% Who was asked
asked(#{kind := ping, occupant := Occupant}) -> Occupant;
asked(#{room := Room}) -> Room.

%% A re-entry has ended.
-spec reentry(ping_muc_reentry:outcome(), ping_muc_actions:sent(), item(), context()) -> outcome().
reentry({entered, IsMissed}, _, Item, _) ->
    {answer, ping_muc_answers:entered(Item, IsMissed)};
reentry({error, Error}, Sent, Item, #{host := Host} = Context) ->
    case ping_muc_stanzas:began(Error) of
        undefined -> bounced(xmpp:get_error(Error), Sent, Item, Context);
        _ -> {answer, ping_muc_answers:room_error(Item, Error, Host)}
    end;
reentry(expired, Sent, Item, Context) ->
    silence(Item, Sent, Context);
reentry(new, _, Item, Context) ->
    own_error(Item, {cancel, 'item-not-found'}, [], Context);
reentry(Refusal, _, Item, Context) ->
    reply(Refusal, Item, Context).

%% This server could not deliver the stanza. If a stream broke meanwhile, that says nothing about the host.
bounced(Error, {_, Breaks} = Sent, #{remote := Remote} = Item, #{host := Host} = Context) ->
    IsBroken = ping_muc_joins:breaks(Context, Remote) =/= Breaks,
    Closed = ping_muc_joins:newest_close(Context, Remote),
    case {is_proven(Item, Context), IsBroken, Error} of
        {true, _, _} ->
            {in_room, ping_muc_answers:proof(Item)};
        {false, true, _} ->
            silence(Item, Sent, Context);
        {false, false, #stanza_error{reason = 'remote-server-not-found'}} ->
            {silence, ping_muc_answers:server_error(Item, {cancel, 'remote-server-not-found'}, Host,
                                                    ping_muc_answers:closed(Closed))};
        _ ->
            {silence, ping_muc_answers:no_answer(Item, Host, undefined, Closed)}
    end.

%% The room did not answer. A stream that broke meanwhile may have lost the answer. If there is no stream, this server
%% itself knows that the host cannot be reached.
silence(#{remote := Remote} = Item, {SentAt, Breaks}, #{host := Host} = Context) ->
    IsBroken = ping_muc_joins:breaks(Context, Remote) =/= Breaks,
    Silence = case IsBroken orelse ping_muc_streams:is_reachable(Context, Remote) of
                  true -> {IsBroken, ping_muc_joins:heard(Context, Remote) > SentAt};
                  false -> undefined
              end,
    case is_proven(Item, Context) of
        true -> {in_room, ping_muc_answers:proof(Item)};
        false -> {silence, ping_muc_answers:no_answer(Item, Host, Silence,
                                                      ping_muc_joins:newest_close(Context, Remote))}
    end.

%% Whether the room has sent the session what only its occupants get, over a stream that began after the close
is_proven(#{kind := ping, room := Room, full := Full, at := At, close := Close}, Context) when is_integer(Close) ->
    case ping_muc_joins:find(Context, Room, Full) of
        #{at := At, proof := Proof} -> Proof > Close;
        _ -> false
    end;
is_proven(_, _) ->
    false.

%% Nothing has come at all: the answer came from somebody else, or the session's process does not reply. Nothing is
%% known then, so a query is inconclusive. A notice is sent again later: the session is still connected.
-spec nothing(item(), context()) -> outcome().
nothing(#{kind := notice} = Item, Context) ->
    reply(rejoining, Item, Context);
nothing(#{remote := Remote} = Item, #{host := Host} = Context) ->
    Closed = ping_muc_joins:newest_close(Context, Remote),
    {silence, ping_muc_answers:no_answer(Item, Host, {true, false}, Closed)}.
