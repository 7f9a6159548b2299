%%% Actions: what a session does for an item of the stanza API, in its own process
%%%
%%% The reply to the request is {Tag, Id, Answer}. What a room answers to a query goes to the request directly, as
%%% {iq_reply, Answer, {Tag, Id, Sent}}.
-module(ping_muc_actions).

-export([perform/5]).

-export_type([answer/0, sent/0]).

-include("logger.hrl").
-include("xmpp.hrl").

%% sent: the room was asked. moved: the session goes on in another process. reentry: how it ended. Others: see
%% ping_muc_answers
-type answer() :: {sent, sent()} | {reentry, ping_muc_reentry:outcome()} | delivered | moved | proven | conflict
                | rejoining | unsupported | too_large | full.
%% When the room was asked, in microseconds, and how many streams had ended by then
-type sent() :: {pos_integer(), non_neg_integer()}.
-type state() :: ejabberd_c2s:state().

-spec perform({pid(), reference()}, ping_muc_contract:item(), {integer(), pos_integer()}, state(),
              ping_muc_host:context()) -> state().
perform(ReplyTo, #{id := Id} = Item, {Deadline, Timeout}, State, Context) ->
    case State of
        #{mgmt_state := resumed} ->
            reply(ReplyTo, Id, moved, State);
        _ ->
            case erlang:monotonic_time(millisecond) > Deadline of
                true -> State; % the request has been answered
                false -> named(ReplyTo, Item, Timeout, State, Context)
            end
    end.

%% Is this the join that the item names?
named(ReplyTo, #{id := Id, room := Room, nick := Nick} = Item, Timeout, State, Context) ->
    case {ping_muc_tracks:find(Room, ping_muc_session:track(State, Context)), Item} of
        {undefined, _} -> reply(ReplyTo, Id, conflict, State);
        {_, #{kind := disco}} -> query(ReplyTo, Item, Timeout, State, Context);
        {#{at := At, nick := Nick} = Join, #{at := At}} -> act(ReplyTo, Item, Join, Timeout, State, Context);
        _ -> reply(ReplyTo, Id, conflict, State)
    end.

act(ReplyTo, #{kind := notice, id := Id} = Item, Join, _, State, Context) ->
    case is_entering(Join, Context) orelse ping_muc_reentry:is_under_way(Join) of
        true -> reply(ReplyTo, Id, rejoining, State);
        false -> reply(ReplyTo, Id, delivered, deliver(Item, State, Context))
    end;
act(ReplyTo, #{kind := reentry, id := Id} = Item, Join, Timeout, State, #{settings := Settings} = Context) ->
    case Settings of
        #{reenter := false} ->
            reply(ReplyTo, Id, unsupported, State);
        #{reenter_limit := Limit} ->
            case is_entering(Join, Context) orelse is_larger(Item, Limit, Context) of
                true -> reply(ReplyTo, Id, refusal(Join, Context), State);
                unknown -> query(ReplyTo, Item, Timeout, State, Context); % only the room knows
                false -> reenter(ReplyTo, Item, Join, Timeout, State, Context)
            end
    end;
act(ReplyTo, #{kind := ping, id := Id, close := Close}, #{proof := Proof}, _, State, _)
  when is_integer(Close), Proof > Close ->
    reply(ReplyTo, Id, proven, State);
act(ReplyTo, #{kind := ping, room := Room} = Item, Join, Timeout, State, Context) ->
    Now = os:system_time(millisecond) / 1000,
    ping_muc_joins:note(Context, Room, ping_muc_session:full(State), #{pinged => Now}),
    query(ReplyTo, Item, Timeout, ping_muc_session:update(Room, Join#{pinged := Now}, State, Context), Context).

is_entering(Join, #{settings := #{timeout := Timeout}}) ->
    ping_muc_tracks:is_entering(Join, Timeout, os:system_time(millisecond) / 1000).

refusal(Join, Context) ->
    case is_entering(Join, Context) of
        true -> rejoining;
        false -> too_large
    end.

%% occupants: what the room has answered
is_larger(#{occupants := Count}, Limit, _) -> not is_integer(Count) orelse Count > Limit;
is_larger(#{room := Room}, Limit, Context) -> ping_muc_rosters:is_larger(Context, Room, Limit).

reenter({Request, Tag} = ReplyTo, #{id := Id, remote := Remote, room := Room} = Item, Join, Timeout, State, Context) ->
    Sent = sent(Remote, Context),
    Occupants = case Item of #{occupants := Count} when is_integer(Count) -> Count; _ -> 0 end,
    case ping_muc_reentry:enter({Room, Occupants}, Join, {{Request, Tag, Id}, Timeout}, State, Context) of
        {ok, Next} -> reply(ReplyTo, Id, {sent, Sent}, Next);
        Refusal -> reply(ReplyTo, Id, Refusal, State)
    end.

%% In the session's own order
query({Request, Tag} = ReplyTo, #{id := Id, remote := Remote} = Item, Timeout, #{jid := JID} = State, Context) ->
    Sent = sent(Remote, Context),
    Query = case Item of
                #{kind := ping, occupant := Occupant} -> ping_muc_stanzas:ping(JID, jid:decode(Occupant));
                #{room := Room} -> ping_muc_stanzas:disco(JID, jid:decode(Room))
            end,
    Replied = reply(ReplyTo, Id, {sent, Sent}, State),
    ejabberd_router:route_iq(Query, {Tag, Id, Sent}, Request, Timeout),
    Replied.

sent(Remote, Context) ->
    {os:system_time(microsecond), ping_muc_joins:breaks(Context, Remote)}.

%% Sends a notice, and ends its join. An inactive client (XEP-0352) gets it at once, a hibernating one when it resumes.
deliver(Item, #{jid := JID} = State, Context) ->
    #{id := Id, occupant := Occupant, room := Room, full := Full, reason := Reason} = Item,
    From = jid:decode(Occupant),
    Notice = xmpp:put_meta(ping_muc_stanzas:notice({Id, From}, JID, Reason), csi_resend, true),
    Sent = ejabberd_c2s:process_info(forget_queued(jid:tolower(From), State), {route, Notice}),
    ?DEBUG("ping_muc: notice to ~ts: out of ~ts", [Full, Room]),
    ping_muc_session:finish(Room, notice, ping_muc_session:track(Sent, Context), Sent, Context).

%% The occupant's own presence may wait for an inactive client. It is out of date now.
forget_queued(Occupant, #{csi_queue := {Last, Queue}} = State) when is_map(Queue) ->
    State#{csi_queue := {Last, maps:remove({Occupant, presence}, Queue)}};
forget_queued(_, State) ->
    State.

reply({Request, Tag}, Id, Answer, State) ->
    Request ! {Tag, Id, Answer},
    State.
