%%% Keeper: the process that has the tables of a host. It is the first one to start and the last one to end, and does
%%% nothing else, so the tables outlive all others.
-module(ping_muc_keeper).

-behaviour(gen_server).

-export([start_link/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-spec start_link(binary(), ping_muc_settings:settings()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host, Settings) ->
    gen_server:start_link(?MODULE, {Host, Settings}, []).

init({Host, Settings}) ->
    process_flag(trap_exit, true),
    _ = ping_muc_host:start(Host, Settings),
    {ok, Host}.

handle_call(_, _, Host) ->
    {reply, error, Host}.

handle_cast(_, Host) ->
    {noreply, Host}.

handle_info(_, Host) ->
    {noreply, Host}.

terminate(_Reason, Host) ->
    ping_muc_host:stop(Host).
