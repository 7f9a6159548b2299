%%% Watch: monitors the processes of established s2s streams, because one that is killed runs no hook
-module(ping_muc_watch).

-behaviour(gen_server).

-export([start_link/1, watch/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(SWEEP, 60000). % ms after which what is known about processes that no longer exist is dropped

-spec start_link(binary()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host) ->
    gen_server:start_link({local, name(Host)}, ?MODULE, Host, []).

%% A stream with a remote host is established.
-spec watch(ping_muc_host:context(), pid(), binary()) -> ok.
watch(#{host := Host}, Pid, Remote) ->
    gen_server:cast(name(Host), {watch, Pid, Remote}).

name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

init(Host) ->
    Context = ping_muc_host:context(Host),
    ok = ping_muc_streams:adopt_all(Context),
    _ = erlang:send_after(?SWEEP, self(), sweep),
    %% Streams that are known from before the module was stopped. Some may have ended since.
    Known = [{erlang:monitor(process, Pid), Remote} || {Pid, Remote} <- ping_muc_streams:established(Context)],
    {ok, #{host => Host, streams => maps:from_list(Known)}}.

handle_call(_, _, State) ->
    {reply, error, State}.

handle_cast({watch, Pid, Remote}, #{streams := Streams} = State) ->
    Ref = erlang:monitor(process, Pid),
    {noreply, State#{streams := Streams#{Ref => Remote}}}.

handle_info({'DOWN', Ref, process, Pid, _}, #{host := Host, streams := Streams} = State) ->
    case {maps:take(Ref, Streams), ping_muc_host:context(Host)} of
        {{Remote, Left}, Context} when Context =/= undefined ->
            ping_muc_log:safely(watching, fun() -> ping_muc_streams:ended(Context, Pid, Remote) end, ok),
            {noreply, State#{streams := Left}};
        _ ->
            {noreply, State}
    end;
handle_info(sweep, #{host := Host} = State) ->
    _ = erlang:send_after(?SWEEP, self(), sweep),
    ok = ping_muc_host:safely(Host, watching, fun ping_muc_streams:drop_bouncing/1, ok),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.
