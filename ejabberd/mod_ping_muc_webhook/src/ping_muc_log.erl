%%% Log: what is logged about a crash, without its data
%%%
%%% A crash must never take a session or a stream down, nor log a stanza or a secret.
-module(ping_muc_log).

-export([safely/3, reason/1, place/1]).

-include("logger.hrl").

-define(LOG_AGAIN, 10). % seconds

%% The result of Fun; Otherwise if it crashes, which is logged.
-spec safely(atom(), fun(() -> Result), Result) -> Result.
safely(What, Fun, Otherwise) ->
    try
        Fun()
    catch
        Class:Reason:Stack ->
            Text = io_lib:format("ping_muc: ~ts failed: ~p:~p at ~p", [What, Class, reason(Reason), place(Stack)]),
            case is_due() of
                true -> ?ERROR_MSG("~ts. Please report this", [Text]);
                false -> ?DEBUG("~ts", [Text])
            end,
            Otherwise
    end.

%% Whether an error may be logged now: one every ten seconds, because what fails once may fail for every stanza
is_due() ->
    Last = case persistent_term:get(?MODULE, undefined) of
               undefined ->
                   New = atomics:new(1, []),
                   persistent_term:put(?MODULE, New),
                   New;
               Known ->
                   Known
           end,
    Now = os:system_time(second),
    Before = atomics:get(Last, 1),
    Now - Before >= ?LOG_AGAIN andalso atomics:compare_exchange(Last, 1, Before, Now) =:= ok.

%% The kind of an error, without the values in it
-spec reason(term()) -> atom().
reason(Reason) when is_atom(Reason) -> Reason;
reason(Reason) when is_tuple(Reason), tuple_size(Reason) > 0, is_atom(element(1, Reason)) -> element(1, Reason);
reason(_) -> error.

%% The innermost calls, without their arguments
-spec place([tuple()]) -> [tuple()].
place(Stack) ->
    [{Module, Function, if is_list(Arity) -> length(Arity); true -> Arity end, proplists:get_value(line, Where, 0)}
     || {Module, Function, Arity, Where} <- lists:sublist(Stack, 4)].
