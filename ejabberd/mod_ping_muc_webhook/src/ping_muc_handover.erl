%%% Handover: what a start of the module takes over from the one before, so that an upgrade (module_upgrade stops and
%%% starts the module) loses no event
%%%
%%% It is plain data in memory. If the module does not start again, it is dropped.
-module(ping_muc_handover).

-export([save/4, take/3]).

-define(FORMAT, 1). % of the data; another release may have another one, and starts without
-define(DROP_AFTER, 600000). % ms

%% Stores the state of a part of a host, unless its process crashes.
-spec save(term(), binary(), atom(), term()) -> ok.
save(Reason, Host, Part, State) when Reason =:= shutdown; Reason =:= normal ->
    persistent_term:put(key(Host, Part), State),
    %% Erased by code that is not of this module, which may be gone by then
    _ = timer:apply_after(?DROP_AFTER, persistent_term, erase, [key(Host, Part)]),
    ok;
save(_, _, _, _) ->
    ok.

%% What was stored; Otherwise if nothing was
-spec take(binary(), atom(), State) -> State.
take(Host, Part, Otherwise) ->
    State = persistent_term:get(key(Host, Part), Otherwise),
    _ = persistent_term:erase(key(Host, Part)),
    State.

key(Host, Part) ->
    {?MODULE, ?FORMAT, Host, Part}.
