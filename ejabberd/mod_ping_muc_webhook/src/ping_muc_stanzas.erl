%%% Stanzas: what a stanza says about a room, as plain data; and the stanzas that this server makes
-module(ping_muc_stanzas).

-export([facts/1, condition/1, began/1, mark_stream/2, is_ours/1, is_delayed/1, is_entry/1, occupants/1]).
-export([ping/2, disco/2, notice/3, gone/2, entry/3, leave/3]).

-export_type([facts/0]).

-include("xmpp.hrl").

%% nick: empty if the stanza is from the room itself. self: status 110. codes: status codes. occupant: the presence of
%% somebody in a room. new_nick: announced by 303, or empty. began: see began/1
-type facts() :: #{id := binary(), room := binary(), nick := binary(), type := available | unavailable | error,
                   self := boolean(), codes := [integer()], occupant := boolean(), new_nick := binary(),
                   began := non_neg_integer() | undefined, condition := atom()}.

%% What a presence says
-spec facts(presence()) -> facts().
facts(#presence{id = Id, type = Type, from = From} = Presence) ->
    #jid{luser = Node, lserver = Remote, lresource = Nick} = From,
    User = case Type of
               error -> false;
               _ -> muc_user(Presence)
           end,
    Codes = case User of #muc_user{status_codes = Some} -> Some; _ -> [] end,
    #{id => Id, room => <<Node/binary, $@, Remote/binary>>, nick => Nick, type => Type,
      self => lists:member(110, Codes), codes => Codes,
      occupant => Type =:= available andalso Nick =/= <<>> andalso User =/= false,
      new_nick => new_nick(User), began => began(Presence), condition => condition(Presence)}.

%% If a part of it cannot be decoded, its status codes count nevertheless.
muc_user(Presence) ->
    case xmpp:get_subtag(Presence, #muc_user{}) of
        false ->
            case [Children || #xmlel{name = <<"x">>, children = Children} = X <- xmpp:get_els(Presence),
                              xmpp:get_ns(X) =:= ?NS_MUC_USER] of
                [Children | _] -> #muc_user{status_codes = lists:flatmap(fun status_code/1, Children)};
                [] -> false
            end;
        User ->
            User
    end.

status_code(#xmlel{name = <<"status">>} = Status) ->
    try [binary_to_integer(fxml:get_tag_attr_s(<<"code">>, Status))]
    catch error:badarg -> []
    end;
status_code(_) ->
    [].

new_nick(#muc_user{items = [#muc_item{nick = Nick} | _]}) when Nick =/= <<>> ->
    case jid:resourceprep(Nick) of
        error -> <<>>;
        Prepped -> Prepped
    end;
new_nick(_) ->
    <<>>.

%% Of an error; none of any other stanza
-spec condition(stanza()) -> atom().
condition(Stanza) ->
    case xmpp:get_type(Stanza) =:= error andalso xmpp:get_error(Stanza) of
        #stanza_error{reason = Reason} when is_atom(Reason) -> Reason;
        _ -> none
    end.

%% When the stream over which a stanza arrived was established, in microseconds; 0 if that was before the module was
%% loaded; undefined if the stanza did not arrive from another host: this server made it
-spec began(stanza()) -> non_neg_integer() | undefined.
began(Stanza) ->
    xmpp:get_meta(Stanza, ping_muc_began, undefined).

-spec mark_stream(Stanza, non_neg_integer()) -> Stanza when Stanza :: stanza().
mark_stream(Stanza, Began) ->
    xmpp:put_meta(Stanza, ping_muc_began, Began).

%% Whether this module made the stanza
-spec is_ours(stanza()) -> boolean().
is_ours(Stanza) ->
    xmpp:get_meta(Stanza, ping_muc_ours, false).

mark(Stanza) ->
    xmpp:put_meta(Stanza, ping_muc_ours, true).

-spec is_delayed(stanza()) -> boolean().
is_delayed(Stanza) ->
    xmpp:has_subtag(Stanza, #delay{stamp = {0, 0, 0}}).

%% Whether a presence asks to enter a room
-spec is_entry(presence()) -> boolean().
is_entry(Presence) ->
    xmpp:has_subtag(Presence, #muc{}).

%% The number of occupants in a room's answer to disco#info; unknown if there is none
-spec occupants(iq()) -> non_neg_integer() | unknown.
occupants(Answer) ->
    Info = xmpp:get_subtag(Answer, #disco_info{}),
    Forms = case Info of #disco_info{xdata = Some} -> Some; _ -> [] end,
    Values = [Value || #xdata{fields = Fields} <- Forms,
                       #xdata_field{var = <<"muc#roominfo_occupants">>, values = [Value | _]} <- Fields],
    try binary_to_integer(hd(Values))
    catch error:badarg -> unknown
    end.

-spec ping(jid(), jid()) -> iq().
ping(From, To) ->
    mark(#iq{type = get, from = From, to = To, sub_els = [#ping{}]}).

-spec disco(jid(), jid()) -> iq().
disco(From, To) ->
    mark(#iq{type = get, from = From, to = To, sub_els = [#disco_info{}]}).

%% The presence that informs a client that it is out of a room (rule 8 in docs/rules.md). It is built from the room's
%% name, a nick that the room confirmed, and a text. A request cannot make it say more.
-spec notice({binary(), jid()}, jid(), binary()) -> presence().
notice({Id, From}, To, Reason) ->
    Item = #muc_item{affiliation = none, role = none, reason = Reason},
    X = #muc_user{items = [Item], status_codes = [110, 330, 333]},
    mark(#presence{id = Id, type = unavailable, from = From, to = To, sub_els = [X]}).

%% An occupant is no longer in a room.
-spec gone(jid(), jid()) -> presence().
gone(Occupant, To) ->
    X = #muc_user{items = [#muc_item{affiliation = none, role = none}]},
    mark(#presence{type = unavailable, from = Occupant, to = To, sub_els = [X]}).

%% A session's own last presence, to enter a room again. Seconds: of history
-spec entry(presence(), {binary(), jid(), jid()}, pos_integer()) -> presence().
entry(Presence, {Id, From, To}, Seconds) ->
    Plain = lists:foldl(fun(Replaced, Before) -> xmpp:remove_subtag(Before, Replaced) end, Presence,
                        [#delay{stamp = {0, 0, 0}}, #muc{}, #muc_user{}]),
    X = #muc{history = #muc_history{seconds = Seconds}},
    Entry = xmpp:set_subtag(Plain#presence{id = Id, type = available, from = From, to = To}, X),
    mark(Entry).

-spec leave(binary(), jid(), jid()) -> presence().
leave(Id, From, To) ->
    mark(#presence{id = Id, type = unavailable, from = From, to = To}).
