-module(ping_muc_doubts).
-behaviour(gen_server).
-export([start_link/1, pings_finished/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
start_link(Host) ->
    gen_server:start_link({local, gen_mod:get_module_proc(Host, ?MODULE)}, ?MODULE, Host, []).
pings_finished(_Context, _Rooms, _IsAnswered) ->
    ok.
init(Host) -> {ok, Host}.
handle_call(_, _, State) -> {reply, error, State}.
handle_cast(_, State) -> {noreply, State}.
handle_info(_, State) -> {noreply, State}.
