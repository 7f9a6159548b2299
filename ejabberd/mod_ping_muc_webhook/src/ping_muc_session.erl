%%% Session: what this module stores in a session's state, and how its joins begin and end
-module(ping_muc_session).

-export([track/2, store/2, update/4, full/1, record/5, finish/5, send_as/2]).

-include("logger.hrl").
-include("xmpp.hrl").

-type state() :: ejabberd_c2s:state().
-type context() :: ping_muc_host:context().

%% What was stored before the module was started again is stale.
-spec track(state(), context()) -> ping_muc_tracks:track().
track(#{ping_muc := #{generation := Generation} = Track}, #{generation := Generation}) -> Track;
track(_, #{generation := Generation}) -> ping_muc_tracks:new(Generation).

-spec store(ping_muc_tracks:track(), state()) -> state().
store(Track, State) ->
    case ping_muc_tracks:is_idle(Track) of
        true -> maps:remove(ping_muc, State);
        false -> State#{ping_muc => Track}
    end.

%% Stores a join that has changed.
-spec update(binary(), ping_muc_tracks:join(), state(), context()) -> state().
update(Room, Join, State, Context) ->
    store(ping_muc_tracks:update(Room, Join, track(State, Context)), State).

%% The session's full JID, normalised
-spec full(state()) -> binary().
full(#{jid := JID}) ->
    jid:encode(jid:tolower(JID)).

%% The room has confirmed the session under a nick.
-spec record(binary(), binary(), ping_muc_tracks:track(), state(), context()) -> state().
record(Room, Nick, Track, State, Context) ->
    At = ping_muc_host:next_at(Context),
    case ping_muc_tracks:confirmed(Room, Nick, At, Track) of
        full ->
            warn_of_many(State, Track);
        {Earlier, Next} ->
            ping_muc_joins:put(Context, Room, full(State), At, Nick),
            Before = case Earlier of
                         undefined -> undefined;
                         #{at := EarlierAt, nick := Nick} -> EarlierAt;
                         #{at := EarlierAt, nick := Old} -> ping_muc_rosters:given_up(Context, Room, Old), EarlierAt
                     end,
            ping_muc_sender:joined(Context, full(State), {Room, Nick, At}, Before),
            store(Next, State)
    end.

warn_of_many(State, #{warned := true}) ->
    State;
warn_of_many(State, Track) ->
    ?WARNING_MSG("ping_muc: ~ts is in 1000 rooms. Further rooms are not watched", [full(State)]),
    store(Track#{warned => true}, State).

%% A join ends. By: who ended it, and so knows of the end. The end by a notice is not reported: the receiver has
%% requested it.
-spec finish(binary(), user | room | notice | other, ping_muc_tracks:track(), state(), context()) -> state().
finish(Room, By, Track, State, Context) ->
    {Join, Next} = ping_muc_tracks:ended(Room, Track),
    case Join of
        undefined ->
            store(Next, State);
        _ ->
            report_end(Room, By, Join, State, Context),
            ping_muc_reentry:ended(Room, Join, By, store(Next, State), Context)
    end.

report_end(Room, By, #{at := At, nick := Nick}, State, Context) ->
    User = full(State),
    IsRemoved = ping_muc_joins:remove(Context, Room, User, self()),
    case IsRemoved of
        true when By =:= notice -> ping_muc_sender:forget(Context, User, Room);
        true -> ping_muc_sender:left(Context, User, Room, At);
        false -> ok % a new session with that JID has the join now
    end,
    _ = [ping_muc_rosters:lost(Context, Room, Nick) || IsRemoved],
    ok.

%% Sends a directed presence as if the session had sent it.
-spec send_as(presence(), state()) -> state().
send_as(Presence, #{lserver := Host} = State) ->
    case ejabberd_hooks:run_fold(user_send_packet, Host, {Presence, State}, []) of
        {#presence{type = Type, to = To} = Sent, #{pres_a := Addresses} = Next} ->
            ejabberd_router:route(Sent),
            Occupant = jid:tolower(To),
            Next#{pres_a := case Type of
                                available -> gb_sets:add_element(Occupant, Addresses);
                                unavailable -> gb_sets:del_element(Occupant, Addresses)
                            end};
        {_, Next} ->
            Next
    end.
