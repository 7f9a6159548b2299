%%% Queue: values by key, in the order in which they were put. A value that is put again goes to the end.
-module(ping_muc_queue).

-export([new/0, put/3, find/2, delete/2, oldest/1, take_oldest/1, size/1, fold/3]).

-export_type([queue/2]).

-opaque queue(Key, Value) :: {non_neg_integer(), #{Key => {pos_integer(), Value}}, gb_trees:tree(pos_integer(), Key)}.

-spec new() -> queue(_, _).
new() ->
    {0, #{}, gb_trees:empty()}.

-spec put(Key, Value, queue(Key, Value)) -> queue(Key, Value).
put(Key, Value, Queue) ->
    {Last, Map, Order} = delete(Key, Queue),
    {Last + 1, Map#{Key => {Last + 1, Value}}, gb_trees:insert(Last + 1, Key, Order)}.

-spec find(Key, queue(Key, Value)) -> {ok, Value} | error.
find(Key, {_, Map, _}) ->
    case Map of
        #{Key := {_, Value}} -> {ok, Value};
        _ -> error
    end.

-spec delete(Key, queue(Key, Value)) -> queue(Key, Value).
delete(Key, {Last, Map, Order} = Queue) ->
    case Map of
        #{Key := {Place, _}} -> {Last, maps:remove(Key, Map), gb_trees:delete(Place, Order)};
        _ -> Queue
    end.

-spec oldest(queue(Key, Value)) -> {Key, Value} | none.
oldest({_, Map, Order}) ->
    case gb_trees:is_empty(Order) of
        true ->
            none;
        false ->
            {_, Key} = gb_trees:smallest(Order),
            {_, Value} = maps:get(Key, Map),
            {Key, Value}
    end.

-spec take_oldest(queue(Key, Value)) -> {Key, Value, queue(Key, Value)} | none.
take_oldest(Queue) ->
    case oldest(Queue) of
        none -> none;
        {Key, Value} -> {Key, Value, delete(Key, Queue)}
    end.

-spec size(queue(_, _)) -> non_neg_integer().
size({_, Map, _}) ->
    map_size(Map).

%% In no particular order
-spec fold(fun((Key, Value, Acc) -> Acc), Acc, queue(Key, Value)) -> Acc.
fold(Fun, Acc, {_, Map, _}) ->
    maps:fold(fun(Key, {_, Value}, Before) -> Fun(Key, Value, Before) end, Acc, Map).
