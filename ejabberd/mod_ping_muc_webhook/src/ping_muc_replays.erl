%%% Replays: which requests to the stanza API have been accepted, so that nobody can send a recorded one again
-module(ping_muc_replays).

-export([new/0, key/2, remember/3, forget/2, memory/0]).

-export_type([replays/0, key/0]).

-type key() :: {binary(), binary()}.

-define(MEMORY, (2 * ping_muc_signature:tolerance())). % seconds: a timestamp may also be ahead of our clock
-define(MAX_REPLAYS, 10000).

-opaque replays() :: ping_muc_queue:queue(term(), integer()).

-spec new() -> replays().
new() ->
    ping_muc_queue:new().

-spec memory() -> pos_integer().
memory() ->
    ?MEMORY.

%% What a request is recognised by: its webhook-id and webhook-timestamp. Copies, because a part of a packet keeps the
%% whole packet in memory.
-spec key(binary(), binary()) -> key().
key(Id, Timestamp) ->
    {binary:copy(Id), binary:copy(Timestamp)}.

%% Stores a request, at a time in seconds. Returns replay if it is stored already, and full if there are too many.
-spec remember(term(), integer(), replays()) -> {ok | replay | full, replays()}.
remember(Key, Now, Replays) ->
    Current = drop_expired(Now, Replays),
    case ping_muc_queue:find(Key, Current) of
        {ok, _} ->
            {replay, Current};
        error ->
            case ping_muc_queue:size(Current) >= ?MAX_REPLAYS of
                true -> {full, Current};
                false -> {ok, ping_muc_queue:put(Key, Now + ?MEMORY, Current)}
            end
    end.

%% Nothing of the request was sent: it may come again.
-spec forget(term(), replays()) -> replays().
forget(Key, Replays) ->
    ping_muc_queue:delete(Key, Replays).

drop_expired(Now, Replays) ->
    case ping_muc_queue:oldest(Replays) of
        {Key, Expires} when Expires =< Now -> drop_expired(Now, ping_muc_queue:delete(Key, Replays));
        _ -> Replays
    end.
