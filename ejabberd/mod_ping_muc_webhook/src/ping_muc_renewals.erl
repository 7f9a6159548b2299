%%% Renewals: joins are reported again, so that the receiver gets back what it has lost
-module(ping_muc_renewals).

-behaviour(gen_server).

-export([start_link/1, announce/1, settings_changed/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(SLICES, 100). % of an interval (refresh); in each of them, its share of the joins is reported again
-define(MIN_SLICE, 1000). % ms; a change of the interval takes effect with the next slice
-define(MAX_SLICE, 60000).
-define(AT_ONCE, 1000). % joins handed over in one step if all are reported
-define(PAUSE, 100). % ms until the next step
-define(MAX_WAITING, 2000). % that wait to be sent: the next batch and one more. The rest is not formatted yet.

-type context() :: ping_muc_host:context().

-spec start_link(binary()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host) ->
    gen_server:start_link({local, name(Host)}, ?MODULE, Host, []).

%% Reports all joins, as fast as the receiver accepts them: a new receiver may know none of them, and an operator may
%% ask for it.
-spec announce(context()) -> ok.
announce(#{host := Host}) ->
    gen_server:cast(name(Host), announce).

%% Before: the settings before
-spec settings_changed(context(), ping_muc_settings:settings()) -> ok.
settings_changed(#{host := Host}, Before) ->
    gen_server:cast(name(Host), {settings_changed, Before}).

name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%% The process. place: how far in the interval joins have been reported, from 0 to 1, and at: when, monotonic ms.
%% left: of an announcement. timer, next: of the next slice, and of the next step of an announcement.

init(Host) ->
    process_flag(trap_exit, true),
    Context = ping_muc_host:context(Host),
    ping_muc_adoption:drop_dead(Context),
    ping_muc_adoption:start(Context, fun(_) -> true end),
    New = #{host => Host, place => 0.0, at => now_ms(), left => [], timer => none, next => none},
    #{left := Left} = State = ping_muc_handover:take(Host, renewals, New),
    Ready = State#{timer := none, next := none},
    {ok, slice_later(?MIN_SLICE, if Left =:= [] -> Ready; true -> next_later(0, Ready) end)}.

terminate(Reason, #{host := Host} = State) ->
    ping_muc_handover:save(Reason, Host, renewals, State).

handle_call(_, _, State) ->
    {reply, error, State}.

handle_cast(Message, State) ->
    {noreply, handle(Message, State)}.

handle_info(Message, State) ->
    {noreply, handle(Message, State)}.

handle(Message, #{host := Host} = State) ->
    case ping_muc_host:context(Host) of
        undefined -> State; % the module is being stopped
        Context ->
            Continued = go_on(Message, Context, State),
            ping_muc_log:safely(renewing, fun() -> handle(Message, Context, Continued) end, Continued)
    end.

%% The timer is set before what may fail: the sender may not answer in time.
go_on(slice, #{settings := #{refresh := Refresh}}, State) ->
    slice_later(max(?MIN_SLICE, min(Refresh * 1000 div ?SLICES, ?MAX_SLICE)), State);
go_on(next, _, #{left := [_ | _]} = State) ->
    next_later(?PAUSE, State);
go_on(_, _, State) ->
    State.

handle(announce, Context, State) ->
    next_later(0, State#{left := joins(fun(_) -> true end, Context)});
handle(next, Context, #{left := Left} = State) ->
    Room = case ping_muc_sender:renew(Context, []) of
               Waiting when Waiting < ?MAX_WAITING -> min(?AT_ONCE, ?MAX_WAITING - Waiting);
               _ -> 0
           end,
    {Now, Later} = lists:split(min(Room, length(Left)), Left),
    renew(Now, Context),
    State#{left := Later};
handle({settings_changed, #{exclude := Before}}, #{settings := #{exclude := Now}} = Context, State) ->
    ping_muc_adoption:drop_unwatched(Context),
    case maps:keys(maps:without(maps:keys(Now), Before)) of
        [] -> ok;
        Watched -> ping_muc_adoption:start(Context, fun(Remote) -> lists:member(Remote, Watched) end)
    end,
    slice_later(?MIN_SLICE, State);
handle(slice, #{settings := #{refresh := Refresh}} = Context, #{place := From, at := At} = State) ->
    Now = now_ms(),
    Share = min((Now - At) / (Refresh * 1000), 1.0),
    renew(joins(fun(#{at := JoinedAt}) -> fraction(place(JoinedAt) - From) < Share end, Context), Context),
    State#{place := fraction(From + Share), at := Now};
handle(_, _, State) ->
    State.

slice_later(Ms, #{timer := Timer} = State) ->
    State#{timer := later(Ms, slice, Timer)}.

next_later(Ms, #{next := Timer} = State) ->
    State#{next := later(Ms, next, Timer)}.

%% In place of the timer before, so that there is one at most
later(Ms, Message, Timer) ->
    _ = if Timer =/= none -> erlang:cancel_timer(Timer); true -> ok end,
    erlang:send_after(Ms, self(), Message).

%% A join's place in the interval. Multiples of the golden ratio's fraction are spread evenly, however close to each
%% other the joins were made.
place(At) ->
    fraction(At rem 1000000 * 0.6180339887498949).

fraction(Number) ->
    Number - math:floor(Number).

joins(IsWanted, Context) ->
    Wanted = ping_muc_joins:fold(fun(Join, Before) ->
                                         case IsWanted(Join) of
                                             true -> [Join | Before];
                                             false -> Before
                                         end
                                 end, [], Context),
    [Join || Join <- Wanted, not ping_muc_adoption:ends_if_dead(Context, Join)].

renew([], _) -> 0;
renew(Joins, Context) -> ping_muc_sender:renew(Context, Joins).

now_ms() ->
    erlang:monotonic_time(millisecond).
