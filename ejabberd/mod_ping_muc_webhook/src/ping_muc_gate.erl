%%% Gate: the process that lets requests to the stanza API in, within the limits and each only once
-module(ping_muc_gate).

-behaviour(gen_server).

-export([start_link/1, enter/2, admit/3, answered/2, refuse/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(CALL_WITHIN, 5000). % ms

-type context() :: ping_muc_host:context().

-spec start_link(binary()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host) ->
    gen_server:start_link({local, name(Host)}, ?MODULE, Host, []).

%% The calling process has a signed request. It counts until the process ends.
-spec enter(context(), term()) -> ok | replay | busy | full.
enter(Context, Key) ->
    call(Context, {enter, Key, os:system_time(second)}).

%% It will send so many queries, by remote host. IsSingle: all are about one room.
-spec admit(context(), #{binary() => pos_integer()}, boolean()) -> ok | {refused, 429 | 503, binary()}.
admit(Context, Queries, IsSingle) ->
    call(Context, {admit, Queries, IsSingle}).

%% One of its queries has been answered.
-spec answered(context(), binary()) -> ok.
answered(#{host := Host}, Remote) ->
    gen_server:cast(name(Host), {answered, self(), Remote}).

%% It is refused, and nothing of it was sent. So a repetition of it is not a replay.
-spec refuse(context(), term()) -> ok.
refuse(#{host := Host}, Key) ->
    gen_server:cast(name(Host), {forget, Key}).

call(#{host := Host}, Message) ->
    gen_server:call(name(Host), Message, ?CALL_WITHIN).

name(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%% The process

init(Host) ->
    process_flag(trap_exit, true),
    Replays = ping_muc_handover:take(Host, replays, ping_muc_replays:new()),
    {ok, #{host => Host, limits => ping_muc_limits:new(), replays => Replays}}.

%% The requests end, too. The receiver sends them again.
terminate(Reason, #{host := Host, replays := Replays, limits := Limits}) ->
    _ = [exit(Pid, kill) || Pid <- ping_muc_limits:processes(Limits)],
    ping_muc_handover:save(Reason, Host, replays, Replays).

handle_call({enter, Key, Now}, {Pid, _}, #{limits := Limits, replays := Replays} = State) ->
    case ping_muc_replays:remember(Key, Now, Replays) of
        {ok, Remembered} ->
            case ping_muc_limits:start_reading(Pid, Limits) of
                {ok, Reading} ->
                    _ = erlang:monitor(process, Pid),
                    {reply, ok, State#{limits := Reading, replays := Remembered}};
                full ->
                    {reply, busy, State}
            end;
        {Refusal, Current} ->
            {reply, Refusal, State#{replays := Current}}
    end;
handle_call({admit, Queries, IsSingle}, {Pid, _}, #{limits := Limits} = State) ->
    case ping_muc_limits:admit(Pid, Queries, IsSingle, Limits) of
        {ok, Admitted} -> {reply, ok, State#{limits := Admitted}};
        Refusal -> {reply, Refusal, State}
    end.

handle_cast({answered, Pid, Remote}, #{limits := Limits} = State) ->
    {noreply, State#{limits := ping_muc_limits:answered(Pid, Remote, Limits)}};
handle_cast({forget, Key}, #{replays := Replays} = State) ->
    {noreply, State#{replays := ping_muc_replays:forget(Key, Replays)}}.

handle_info({'DOWN', _, process, Pid, _}, #{limits := Limits} = State) ->
    {noreply, State#{limits := ping_muc_limits:finish(Pid, Limits)}};
handle_info(_, State) ->
    {noreply, State}.
