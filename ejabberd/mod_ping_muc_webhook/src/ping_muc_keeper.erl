%%% Keeper: the process that has the tables of a host. It is the first one to start and the last one to end, and does
%%% nothing else, so the tables outlive all others.
-module(ping_muc_keeper).

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-spec start_link(binary()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Host) ->
    gen_server:start_link(?MODULE, Host, []).

init(Host) ->
    process_flag(trap_exit, true),
    %% ejabberd has stored the options before it starts the module.
    _ = ping_muc_host:start(Host, ping_muc_settings:read(gen_mod:get_module_opts(Host, mod_ping_muc_webhook))),
    {ok, Host}.

handle_call(_, _, Host) ->
    {reply, error, Host}.

handle_cast(_, Host) ->
    {noreply, Host}.

handle_info(_, Host) ->
    {noreply, Host}.

terminate(_Reason, Host) ->
    ping_muc_host:stop(Host).
