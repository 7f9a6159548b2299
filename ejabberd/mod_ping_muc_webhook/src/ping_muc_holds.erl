%%% Holds: what a room sends to a session because of a re-entry, and the client must not see
%%%
%%% The user is out of the room by now, or the room was a new one. Until the room confirms that the session is out, all
%%% that it sends is held back.
-module(ping_muc_holds).

-export([new/0, begins/3, add_id/3, user_enters/2, takes_presence/2, takes_message/2, is_empty/1, has/2]).

-export_type([holds/0]).

-define(MAX_HOLDS, 100). % rooms of one session; the oldest are dropped

%% ids: of our stanzas. known: the client knows already that it is out. again: the user has entered since. admitted: the
%% room has answered our entry.
-type hold() :: #{ids := [binary()], nick := binary(), known := boolean(), admitted := boolean(), again := boolean()}.
-opaque holds() :: ping_muc_queue:queue(binary(), hold()).

-spec new() -> holds().
new() ->
    ping_muc_queue:new().

-spec is_empty(holds()) -> boolean().
is_empty(Holds) ->
    ping_muc_queue:size(Holds) =:= 0.

-spec has(binary(), holds()) -> boolean().
has(Room, Holds) ->
    ping_muc_queue:find(Room, Holds) =/= error.

-spec begins(binary(), #{ids := [binary()], nick := binary(), known := boolean(), admitted := boolean()}, holds()) ->
    holds().
begins(Room, Hold, Holds) ->
    Added = ping_muc_queue:put(Room, Hold#{again => false}, Holds),
    case ping_muc_queue:size(Added) > ?MAX_HOLDS of
        true ->
            {_, _, Shorter} = ping_muc_queue:take_oldest(Added),
            Shorter;
        false ->
            Added
    end.

%% One more stanza of ours
-spec add_id(binary(), binary(), holds()) -> holds().
add_id(Room, Id, Holds) ->
    update(Room, fun(#{ids := Ids} = Hold) -> Hold#{ids := [Id | Ids]} end, Holds).

%% The user itself enters a room from which something is held back.
-spec user_enters(binary(), holds()) -> holds().
user_enters(Room, Holds) ->
    update(Room, fun(Hold) -> Hold#{again := true} end, Holds).

update(Room, Fun, Holds) ->
    case ping_muc_queue:find(Room, Holds) of
        {ok, Hold} -> ping_muc_queue:put(Room, Fun(Hold), Holds);
        error -> Holds
    end.

%% Whether a presence from a room is held back from the client. Facts: of ping_muc_stanzas, with id
-spec takes_presence(ping_muc_stanzas:facts(), holds()) -> {boolean(), holds()}.
takes_presence(#{room := Room, id := Id} = Facts, Holds) ->
    case ping_muc_queue:find(Room, Holds) of
        {ok, #{ids := Ids} = Hold} ->
            {IsHeld, Next} = takes(Facts, Id =/= <<>> andalso lists:member(Id, Ids), Hold),
            case Next of
                ended -> {IsHeld, ping_muc_queue:delete(Room, Holds)};
                _ -> {IsHeld, ping_muc_queue:put(Room, Next, Holds)}
            end;
        error ->
            {false, Holds}
    end.

takes(#{type := error}, IsOurs, #{again := Again} = Hold) ->
    {IsOurs orelse not Again, Hold};
takes(#{type := unavailable, self := IsSelf, nick := Nick}, _, #{nick := Own, again := Again} = Hold)
  when IsSelf; Nick =:= Own ->
    #{admitted := Admitted, known := Known} = Hold,
    %% The end of our re-entry. The user's own entry follows it.
    case not Again orelse Admitted of
        true -> {Known, ended};
        false -> {false, Hold}
    end;
takes(_, _, #{again := false} = Hold) ->
    {true, Hold};
takes(#{type := available, self := true}, true, Hold) ->
    {true, Hold#{admitted := true}};
takes(#{type := available, self := true}, false, _) ->
    {false, ended};
takes(_, _, Hold) ->
    {false, Hold}.

-spec takes_message(binary(), holds()) -> boolean().
takes_message(Room, Holds) ->
    case ping_muc_queue:find(Room, Holds) of
        {ok, #{again := Again}} -> not Again;
        error -> false
    end.
