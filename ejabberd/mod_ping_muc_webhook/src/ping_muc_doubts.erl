%%% Doubts: reasons to doubt that this host's sessions are still in a room, although no stream closed (rule 11 in
%%% docs/rules.md)
%%%
%%% Either the room says to one of them that it is not in it, or the room has been silent for long. In both cases the
%%% module requests a check of that room, or of the whole host if many of its rooms say so. It does not decide whether
%%% the users are out.
-module(ping_muc_doubts).

-behaviour(gen_server).

-export([start_link/1, denied/3, pings_finished/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(SWEEP, 600). % seconds after which what is no longer needed is dropped
-define(LEAST_WINDOW, 5). % seconds from a check that a room's error caused until the next one may
-define(PASSES, 4). % in an interval, over all joins. So a silent room is found late by a fourth of it at most.
-define(SLICES, 100). % of a pass
-define(MIN_SLICE, 1). % seconds
-define(MAX_SLICE, 60).
-define(MAX_EXAMINED, 1000). % joins in one slice
-define(MAX_UNHEARD, 4). % checks of one host's silent rooms before anything has arrived from it

-type context() :: ping_muc_host:context().

-spec start_link(binary()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host) ->
    gen_server:start_link({local, name(Host)}, ?MODULE, Host, []).

%% A room says to a session that it is not in it.
-spec denied(context(), binary(), binary()) -> ok.
denied(#{host := Host}, Room, User) ->
    gen_server:cast(name(Host), {denied, Room, User}).

%% A request to the stanza API about these rooms is finished. IsAnswered: whether they have answered all pings
-spec pings_finished(context(), [binary()], boolean()) -> ok.
pings_finished(_, [], _) ->
    ok;
pings_finished(#{host := Host}, Rooms, IsAnswered) ->
    gen_server:cast(name(Host), {pings_finished, Rooms, IsAnswered}).

name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%% The process. Its state:
%%   requested  Room → when a check of it was last requested, and the user whose allowance it used, if any
%%   unheard    Remote → when checks of silent rooms there were requested, and how many since anything arrived from it
%%   waiting    Room → true while a timer is set to examine it later
%%   last       key of the join that was examined last, and when, monotonic s

init(Host) ->
    _ = erlang:send_after(?SWEEP * 1000, self(), sweep),
    _ = erlang:send_after(?MIN_SLICE * 1000, self(), slice),
    process_flag(trap_exit, true),
    New = #{host => Host, requested => #{}, allowances => ping_muc_allowances:new(), unheard => #{}, waiting => #{},
            last => first, examined_at => monotonic()},
    #{waiting := Waiting} = State = ping_muc_handover:take(Host, doubts, New),
    _ = [self() ! {examine, Room} || Room <- maps:keys(Waiting)],
    {ok, State#{waiting := #{}}}.

terminate(Reason, #{host := Host} = State) ->
    ping_muc_handover:save(Reason, Host, doubts, State).

handle_call(_, _, State) ->
    {reply, error, State}.

handle_cast(Message, State) ->
    {noreply, handle(Message, State)}.

handle_info(Message, State) ->
    {noreply, handle(Message, State)}.

handle(Message, #{host := Host} = State) ->
    ping_muc_host:safely(Host, doubting, fun(Context) -> handle(Message, Context, State) end, State).

%% A check is requested at once, unless there was one within the window, or there were too many. A check pings all joins
%% that were made before it, and so settles all earlier doubts. A later doubt, or one that must wait, is examined later.
handle({denied, Room, User}, Context, #{allowances := Allowances} = State) ->
    Accounts = ping_muc_allowances:of_room(Room, User),
    case max(seconds_left(Room, Context, State), ping_muc_allowances:wait(Accounts, monotonic(), Allowances)) of
        Left when Left =< 0 ->
            request_for(User, Room, Context, State);
        Left ->
            ping_muc_joins:note(Context, Room, User, #{denied => os:system_time(millisecond) / 1000}),
            request_for_host(Room, Context, examine_later(Room, Left, State))
    end;
handle({pings_finished, Rooms, IsAnswered}, _, State) ->
    lists:foldl(fun(Room, Before) -> settle(Room, IsAnswered, Before) end, State, Rooms);
handle({examine, Room}, Context, #{waiting := Waiting} = State) ->
    examine(Room, Context, State#{waiting := maps:remove(Room, Waiting)});
handle(slice, #{settings := #{silence := Silence}} = Context, #{examined_at := Before} = State) ->
    Pass = max(1, Silence) / ?PASSES,
    Slice = max(?MIN_SLICE, min(Pass / ?SLICES, ?MAX_SLICE)),
    _ = erlang:send_after(round(Slice * 1000), self(), slice),
    Now = monotonic(),
    Examined = State#{examined_at := Now},
    case Silence of
        0 -> Examined;
        _ ->
            Share = min((Now - Before) / Pass, 1),
            Count = min(ceil(ping_muc_joins:count(Context) * Share), ?MAX_EXAMINED),
            examine_next(Count, none, Context, Examined)
    end;
handle(sweep, Context, #{allowances := Allowances, requested := Requested, unheard := Unheard} = State) ->
    _ = erlang:send_after(?SWEEP * 1000, self(), sweep),
    State#{allowances := ping_muc_allowances:sweep(monotonic(), Allowances),
           requested := maps:filter(fun(Room, _) -> ping_muc_joins:in_room(Context, Room) =/= [] end, Requested),
           unheard := maps:filter(fun(Remote, _) -> ping_muc_joins:has_remote(Context, Remote) end, Unheard)};
handle(_, _, State) ->
    State.

request_check(Room, Cause, Account, Context, #{requested := Requested} = State) ->
    ping_muc_sender:check(Context, remote(Room), Room, Cause),
    State#{requested := Requested#{Room => {monotonic(), Account}}}.

remote(Room) ->
    [_, Remote] = binary:split(Room, <<"@">>),
    Remote.

%% What the room says

request_for(User, Room, Context, #{allowances := Allowances} = State) ->
    Spent = ping_muc_allowances:spend(ping_muc_allowances:of_room(Room, User), 1, monotonic(), Allowances),
    request_check(Room, <<"room-error">>, User, Context, State#{allowances := Spent}).

%% So many rooms of a host say so that single checks are used up: its chat service has probably restarted. One check of
%% all its rooms also finds the users who do not write.
request_for_host(Room, Context, #{allowances := Allowances} = State) ->
    Now = monotonic(),
    Accounts = ping_muc_allowances:of_host(remote(Room)),
    IsUsedUp = not ping_muc_allowances:has({host, remote(Room)}, Now, Allowances),
    case IsUsedUp andalso ping_muc_allowances:wait(Accounts, Now, Allowances) =< 0 of
        true ->
            ping_muc_sender:check(Context, remote(Room), undefined, <<"room-error">>),
            State#{allowances := ping_muc_allowances:spend(Accounts, 1, Now, Allowances)};
        false ->
            State
    end.

settle(Room, IsAnswered, #{requested := Requested, allowances := Allowances} = State) ->
    case Requested of
        #{Room := {At, User}} when User =/= none ->
            Back = if IsAnswered -> -ping_muc_allowances:given_back(); true -> 0 end,
            Accounts = ping_muc_allowances:of_room(Room, User),
            State#{requested := Requested#{Room := {At, none}},
                   allowances := ping_muc_allowances:spend(Accounts, Back, monotonic(), Allowances)};
        _ ->
            State
    end.

%% After that time, a check is requested if a join is still in doubt, and as soon as the allowance permits it.
examine_later(Room, Seconds, #{waiting := Waiting} = State) ->
    case Waiting of
        #{Room := _} ->
            State;
        _ ->
            _ = erlang:send_after(ceil(Seconds * 1000), self(), {examine, Room}),
            State#{waiting := Waiting#{Room => true}}
    end.

examine(Room, Context, #{allowances := Allowances} = State) ->
    Users = [User || #{user := User} = Join <- ping_muc_joins:in_room(Context, Room), is_in_doubt(Join)],
    Waits = [{ping_muc_allowances:wait(ping_muc_allowances:of_room(Room, User), monotonic(), Allowances), User}
             || User <- Users],
    case lists:sort(Waits) of
        [] -> State;
        [{Left, User} | _] when Left =< 0 -> request_for(User, Room, Context, State);
        [{Left, _} | _] -> examine_later(Room, max(1, Left), State)
    end.

%% Whether a room has denied a join after the last ping of it
is_in_doubt(#{denied := Denied, at := At, pinged := Pinged}) ->
    Denied > max(At / 1.0e6, Pinged).

%% Until the next check of the room may be requested
seconds_left(Room, #{settings := #{delay := Delay}}, #{requested := Requested}) ->
    case Requested of
        #{Room := {At, _}} -> At + max(?LEAST_WINDOW, Delay) - monotonic();
        _ -> 0
    end.

%% What the room does not say

%% Examines the joins one after the other, and few at a time, so that rooms that become silent together are not checked
%% together.
examine_next(0, _, _, State) ->
    State;
examine_next(Count, Before, Context, #{last := Last} = State) ->
    case ping_muc_joins:next(Context, Last) of
        none when Last =:= first -> State; % no joins
        none -> examine_next(Count, none, Context, State#{last := first});
        {Key, Room} when Room =:= Before -> examine_next(Count - 1, Room, Context, State#{last := Key});
        {Key, Room} -> examine_next(Count - 1, Room, Context, examine_silence(Room, Context, State#{last := Key}))
    end.

examine_silence(Room, Context, State) ->
    case is_silent(Room, Context, State) andalso may_check(remote(Room), Context, State) of
        {true, Allowed} -> request_check(Room, <<"silence">>, none, Context, Allowed);
        false -> State
    end.

is_silent(Room, #{settings := #{silence := Silence}} = Context, #{requested := Requested}) ->
    Now = monotonic(),
    IsDue = case Requested of
                #{Room := {At, _}} -> Now - At >= Silence;
                _ -> true
            end,
    IsDue andalso lists:any(fun(#{heard := Heard}) -> Now - Heard >= Silence end,
                            ping_muc_joins:in_room(Context, Room)).

%% A host that hangs is silent in all of its rooms. Until something arrives from it, checks of a few rooms are enough.
may_check(Remote, #{settings := #{silence := Silence}} = Context, #{unheard := Unheard} = State) ->
    Now = os:system_time(microsecond),
    Heard = ping_muc_joins:heard(Context, Remote),
    Count = case Unheard of
                #{Remote := {At, Before}} when Now - At < Silence * 1000000, Heard =< At -> Before;
                _ -> 0
            end,
    Count < ?MAX_UNHEARD andalso {true, State#{unheard := Unheard#{Remote => {Now, Count + 1}}}}.

monotonic() ->
    erlang:monotonic_time(millisecond) / 1000.
