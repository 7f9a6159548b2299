%%% Limits of the stanza API: how many requests, and queries to rooms, may be under way at once
-module(ping_muc_limits).

-export([new/0, start_reading/2, admit/4, answered/3, finish/2, processes/1]).

-export_type([limits/0]).

-define(MAX_READING, 16). % requests that are being read, and whose stanzas are being sent
-define(MAX_WAITING, 256). % requests that wait for rooms
-define(MAX_WAITING_FOR_HOST, 8). % of those, for one remote host: a silent one must not hold up the others
%% The same, of requests about a single room. Checks of many single rooms must not hold up checks of whole hosts.
-define(MAX_SINGLE, 192).
-define(MAX_SINGLE_FOR_HOST, 6).
-define(MAX_IN_FLIGHT, 1000). % queries to one remote host, which reads them at its own pace
-define(MAX_ALL_IN_FLIGHT, 32000). % queries to all remote hosts

%% A request: its unanswered queries by remote host, and whether they are about a single room. A query counts from the
%% moment at which its request is admitted. Otherwise the next one, which arrives before it is sent, would be admitted,
%% too.
-type request() :: reading | {#{binary() => non_neg_integer()}, boolean()}.
-opaque limits() :: #{pid() => request()}.

-spec new() -> limits().
new() ->
    #{}.

-spec start_reading(pid(), limits()) -> {ok, limits()} | full.
start_reading(Pid, Limits) ->
    case length([reading || reading <- maps:values(Limits)]) < ?MAX_READING of
        true -> {ok, Limits#{Pid => reading}};
        false -> full
    end.

%% A request has been read, and its queries are about to be sent. Returns HTTP status and text if it must be refused.
-spec admit(pid(), #{binary() => pos_integer()}, boolean(), limits()) ->
    {ok, limits()} | {refused, 429 | 503, binary()}.
admit(Pid, Queries, _, Limits) when map_size(Queries) =:= 0 ->
    {ok, Limits#{Pid := {Queries, false}}};
admit(Pid, Queries, IsSingle, Limits) ->
    Others = [Request || {Queried, _} = Request <- maps:values(Limits), map_size(Queried) > 0],
    Single = length([single || {_, true} <- Others]),
    IsFull = length(Others) >= ?MAX_WAITING orelse IsSingle andalso Single >= ?MAX_SINGLE,
    InFlight = lists:sum([sum(Queried) || {Queried, _} <- Others]) + sum(Queries),
    if
        IsFull; InFlight > ?MAX_ALL_IN_FLIGHT -> {refused, 503, <<"too many requests wait for rooms">>};
        true -> admit_for(maps:to_list(Queries), IsSingle, Others, Limits#{Pid := {Queries, IsSingle}})
    end.

admit_for([{Remote, Count} | Rest], IsSingle, Others, Limits) ->
    For = [Request || {Queried, _} = Request <- Others, is_map_key(Remote, Queried)],
    Single = length([single || {_, true} <- For]),
    InFlight = Count + lists:sum([maps:get(Remote, Queried) || {Queried, _} <- For]),
    if
        length(For) >= ?MAX_WAITING_FOR_HOST ->
            {refused, 429, <<"8 requests wait for one remote host already">>};
        IsSingle, Single >= ?MAX_SINGLE_FOR_HOST ->
            {refused, 429, <<"6 requests about single rooms wait for one remote host already">>};
        InFlight > ?MAX_IN_FLIGHT ->
            {refused, 429, <<"more than 1000 pings would be in flight to one remote host">>};
        true ->
            admit_for(Rest, IsSingle, Others, Limits)
    end;
admit_for([], _, _, Limits) ->
    {ok, Limits}.

%% A query of a request has been answered, or will not be sent.
-spec answered(pid(), binary(), limits()) -> limits().
answered(Pid, Remote, Limits) ->
    case Limits of
        #{Pid := {#{Remote := 1} = Queries, IsSingle}} -> Limits#{Pid := {maps:remove(Remote, Queries), IsSingle}};
        #{Pid := {#{Remote := Count} = Queries, IsSingle}} -> Limits#{Pid := {Queries#{Remote := Count - 1}, IsSingle}};
        _ -> Limits
    end.

%% A request has been answered, or given up.
-spec finish(pid(), limits()) -> limits().
finish(Pid, Limits) ->
    maps:remove(Pid, Limits).

-spec processes(limits()) -> [pid()].
processes(Limits) ->
    maps:keys(Limits).

sum(Queries) ->
    lists:sum(maps:values(Queries)).
