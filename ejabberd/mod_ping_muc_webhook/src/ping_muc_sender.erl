%%% Sender: the process that reports the events of a host as webhooks
%%%
%%% It decides what is reported, and when (ping_muc_folds, ping_muc_closes). ping_muc_delivery sends it.
-module(ping_muc_sender).

-behaviour(gen_server).

-export([start_link/1, joined/4, left/4, forget/3, closed/5, check/4, renew/2, beat/1, settings_changed/1, status/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include("logger.hrl").

-define(SWEEP, 3600000). % ms
-define(MAX_CLOSE_REASON, 256). % bytes
-define(CALL_WITHIN, 5000). % ms

-type context() :: ping_muc_host:context().

-spec start_link(binary()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host) ->
    gen_server:start_link({local, name(Host)}, ?MODULE, Host, []).

%% Reports. Each returns at once: nothing waits for the receiver.

%% A join is new, or has changed. Earlier: when the one before it was made, in microseconds
-spec joined(context(), binary(), {binary(), binary(), pos_integer()}, pos_integer() | undefined) -> ok.
joined(Context, User, {Room, Nick, At}, Earlier) ->
    cast(Context, {change, joined, {Room, User}, At, #{user => User, room => Room, nick => Nick}, Earlier}).

%% A join that was made at that moment has ended.
-spec left(context(), binary(), binary(), pos_integer()) -> ok.
left(Context, User, Room, Earlier) ->
    At = ping_muc_host:next_at(Context),
    cast(Context, {change, left, {Room, User}, At, #{user => User, room => Room}, Earlier}).

%% A join has ended in a way that the receiver knows.
-spec forget(context(), binary(), binary()) -> ok.
forget(Context, User, Room) ->
    cast(Context, {forget, {Room, User}}).

%% A stream has ended.
-spec closed(context(), binary(), pos_integer(), incoming | outgoing, binary()) -> ok.
closed(Context, Remote, At, Direction, Reason) ->
    Text = ping_muc_text:cut(Reason, ?MAX_CLOSE_REASON),
    cast(Context, {closed, Remote, #{at => At, direction => Direction, reason => Text}}).

%% Requests a check that is due at once (rule 11 in docs/rules.md). Room: undefined for all rooms on the remote host
-spec check(context(), binary(), binary() | undefined, binary()) -> ok.
check(Context, Remote, Room, Cause) ->
    cast(Context, {check, Remote, Room, Cause, ping_muc_host:next_at(Context)}).

%% Reports joins again, which the receiver knows. Returns how many joins wait to be reported again.
-spec renew(context(), [ping_muc_joins:join()]) -> non_neg_integer().
renew(#{host := Host}, Joins) ->
    gen_server:call(name(Host), {renew, Joins}, ?CALL_WITHIN).

%% Sends a heartbeat now, if the host sends any.
-spec beat(context()) -> ok.
beat(Context) ->
    cast(Context, beat).

-spec settings_changed(context()) -> ok.
settings_changed(Context) ->
    cast(Context, settings_changed).

%% As ping_muc_delivery:status/1, and held: how many closes are held back
-spec status(context()) -> map().
status(#{host := Host}) ->
    gen_server:call(name(Host), status, ?CALL_WITHIN).

cast(#{host := Host}, Message) ->
    gen_server:cast(name(Host), Message).

name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%% The process

init(Host) ->
    process_flag(trap_exit, true),
    _ = erlang:send_after(?SWEEP, self(), sweep),
    Context = ping_muc_host:context(Host),
    New = #{host => Host, delivery => ping_muc_delivery:new(Context), folds => ping_muc_folds:new(),
            closes => ping_muc_closes:new()},
    #{delivery := Delivery, folds := Folds, closes := Closes} = State = ping_muc_handover:take(Host, sender, New),
    _ = [wait(Key, Due, Due - now_s()) || {Key, Due} <- ping_muc_folds:waiting(Folds)],
    lists:foreach(fun(Remote) -> open_window(Remote, Context) end, ping_muc_closes:windows(Closes)),
    {ok, State#{delivery := ping_muc_delivery:resume(Delivery)}}.

terminate(Reason, #{host := Host} = State) ->
    ping_muc_handover:save(Reason, Host, sender, State).

%% A crash must not lose the events. So each message that fails leaves the state as it was.

handle_call(Request, _From, State) ->
    %% Without a reply, the caller's time runs out.
    ping_muc_log:safely(reporting, fun() -> answer(Request, State) end, {noreply, State}).

answer({renew, Joins}, #{delivery := Delivery} = State) ->
    {Waiting, Next} = ping_muc_delivery:renew([renewal(Join) || Join <- Joins], Delivery),
    {reply, Waiting, State#{delivery := Next}};
answer(status, #{delivery := Delivery, closes := Closes} = State) ->
    {reply, (ping_muc_delivery:status(Delivery))#{held => ping_muc_closes:held(Closes)}, State}.

handle_cast(Message, State) ->
    {noreply, handle(Message, State, fun report/3)}.

handle_info(Message, State) ->
    {noreply, handle(Message, State, fun continue/3)}.

handle(Message, #{host := Host} = State, Fun) ->
    ping_muc_host:safely(Host, reporting, fun(Context) -> Fun(Message, Context, State) end, State).

report({change, Type, {Room, _} = Key, At, Fields, Earlier}, #{settings := #{delay := Delay}},
       #{folds := Folds, delivery := Delivery} = State) ->
    [_, Remote] = binary:split(Room, <<"@">>),
    Event = ping_muc_outbox:event(<<"muc.", (atom_to_binary(Type, utf8))/binary>>, Key, At, Fields, now_s()),
    Change = #{type => Type, key => Key, remote => Remote, event => Event#{known := Earlier =/= undefined},
               earlier => case Earlier of undefined -> undefined; _ -> Earlier / 1.0e6 end,
               is_queued => ping_muc_delivery:is_queued(Key, Delivery)},
    {Actions, Folded} = ping_muc_folds:report(Change, Delay, now_s(), Folds),
    act(Actions, State#{folds := Folded});
report({forget, Key}, _, #{folds := Folds, delivery := Delivery} = State) ->
    State#{folds := ping_muc_folds:drop(Key, Folds), delivery := ping_muc_delivery:drop(Key, Delivery)};
report({closed, Remote, Close}, Context, #{closes := Closes, delivery := Delivery} = State) ->
    IsQueued = ping_muc_delivery:is_queued({closed, Remote}, Delivery),
    case ping_muc_closes:closed(Remote, Close, IsQueued, Closes) of
        {hold, Held} ->
            State#{closes := Held};
        {report, Next} ->
            report_close(Remote, Close, Context, State#{closes := Next});
        {report_and_window, Next} ->
            open_window(Remote, Context),
            report_close(Remote, Close, Context, State#{closes := Next})
    end;
report({check, Remote, Room, Cause, At}, Context, State) ->
    {Name, Where} = case Room of undefined -> {Remote, #{}}; _ -> {Room, #{room => Room}} end,
    ?DEBUG("ping_muc: requesting a check of ~ts (~ts)", [Name, Cause]),
    Fields = (maps:merge(how(Context), Where))#{remote => Remote, cause => Cause, delay => 0},
    enqueue(ping_muc_outbox:event(<<"check.requested">>, {check, Remote, Room}, At, Fields, now_s()), State);
report(beat, _, #{delivery := Delivery} = State) ->
    State#{delivery := ping_muc_delivery:beat(Delivery)};
report(settings_changed, Context, #{delivery := Delivery} = State) ->
    {IsNew, Next} = ping_muc_delivery:follow_settings(Context, Delivery),
    if
        IsNew ->
            ?INFO_MSG("ping_muc: there is a new webhook_url: all joins are reported to it", []),
            ping_muc_renewals:announce(Context);
        true ->
            ok
    end,
    State#{delivery := Next}.

%% How the server wants a check to be made
how(#{settings := Settings}) ->
    maps:with([timeout, patience, dry_run, reenter, notice_limit, notice_share], Settings).

report_close(Remote, #{at := At, direction := Direction, reason := Reason}, Context, State) ->
    #{settings := #{delay := Delay}} = Context,
    Why = case Reason of <<>> -> #{}; _ -> #{reason => Reason} end,
    Fields = (maps:merge(how(Context), Why))#{remote => Remote, direction => Direction, delay => Delay},
    enqueue(ping_muc_outbox:event(<<"s2s.closed">>, {closed, Remote}, At, Fields, now_s()), State).

open_window(Remote, #{settings := #{delay := Delay}}) ->
    _ = erlang:send_after(Delay * 500, self(), {window_over, Remote}),
    ok.

enqueue(Event, #{delivery := Delivery} = State) ->
    State#{delivery := ping_muc_delivery:enqueue(Event, Delivery)}.

act(Actions, State) ->
    lists:foldl(fun({send, #{type := left, event := Event}}, #{delivery := Delivery} = Before) ->
                        Before#{delivery := ping_muc_delivery:leave(Event, Delivery)};
                   ({send, #{event := Event}}, Before) ->
                        enqueue(Event, Before);
                   ({wait, Key, Due, Seconds}, Before) ->
                        wait(Key, Due, Seconds),
                        Before
                end, State, Actions).

wait(Key, Due, Seconds) ->
    _ = erlang:send_after(max(0, round(Seconds * 1000)), self(), {due, Key, Due}),
    ok.

%% Time passes

continue({due, Key, Due}, _, #{folds := Folds} = State) ->
    {Actions, Folded} = ping_muc_folds:due(Key, Due, now_s(), Folds),
    act(Actions, State#{folds := Folded});
continue({window_over, Remote}, Context, #{closes := Closes} = State) ->
    case ping_muc_closes:window_over(Remote, ping_muc_joins:has_remote(Context, Remote), Closes) of
        {none, Next} ->
            State#{closes := Next};
        {Close, Next} ->
            open_window(Remote, Context),
            report_close(Remote, Close, Context, State#{closes := Next})
    end;
continue(sweep, _, #{folds := Folds} = State) ->
    _ = erlang:send_after(?SWEEP, self(), sweep),
    {Actions, Swept} = ping_muc_folds:sweep(now_s(), Folds),
    act(Actions, State#{folds := Swept});
continue(Message, Context, #{delivery := Delivery} = State) ->
    State#{delivery := ping_muc_delivery:continue(Message, Context, Delivery)}.

renewal(#{room := Room, user := User, nick := Nick, at := At}) ->
    ping_muc_outbox:renewal({Room, User}, At, #{user => User, room => Room, nick => Nick}, now_s()).

now_s() ->
    os:system_time(millisecond) / 1000.
