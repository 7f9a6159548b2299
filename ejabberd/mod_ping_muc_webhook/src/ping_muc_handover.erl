%%% Handover: what a start of the module takes over from the one before, so that an upgrade (module_upgrade stops and
%%% starts the module) loses no event
%%%
%%% It is plain data in memory. If the module does not start again, it is dropped. If the whole server stops, nothing is
%%% stored.
-module(ping_muc_handover).

-export([save/4, take/3]).

-define(FORMAT, 2). % of the data; another release may have another one, and starts without
-define(DROP_AFTER, 600000). % ms

%% Stores the state of a part of a host, unless its process crashes.
-spec save(term(), binary(), atom(), term()) -> ok.
save(Reason, Host, Part, State) when Reason =:= shutdown; Reason =:= normal ->
    case init:get_status() of
        {stopping, _} ->
            ok;
        _ ->
            _ = take(Host, Part, none), % and its timer, which would drop what is stored now
            %% Erased by code that is not of this module, which may be gone by then
            {ok, Timer} = timer:apply_after(?DROP_AFTER, persistent_term, erase, [key(Host, Part)]),
            persistent_term:put(key(Host, Part), {Timer, State})
    end;
save(_, _, _, _) ->
    ok.

%% What was stored; Otherwise if nothing was
-spec take(binary(), atom(), State) -> State.
take(Host, Part, Otherwise) ->
    case persistent_term:get(key(Host, Part), none) of
        {Timer, State} ->
            _ = timer:cancel(Timer),
            _ = persistent_term:erase(key(Host, Part)),
            State;
        none ->
            Otherwise
    end.

key(Host, Part) ->
    {?MODULE, ?FORMAT, Host, Part}.
