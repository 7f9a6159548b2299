%%% Receiver: what its answers to webhooks say, for the operator
-module(ping_muc_receiver).

-export([object/1, detail/1, log_rejected/2, compare_versions/2, complaint/2]).

-include("logger.hrl").

-define(MAX_REJECTED_LOGGED, 10). % of one answer

%% The JSON object in an answer; empty if there is none
-spec object(binary()) -> map().
object(Body) ->
    case ping_muc_json:decode(Body) of
        {ok, Object} when is_map(Object) -> Object;
        _ -> #{}
    end.

%% The detail of a problem document (RFC 9457)
-spec detail(binary()) -> binary().
detail(Body) ->
    detail_of(object(Body)).

detail_of(#{<<"detail">> := Detail}) when is_binary(Detail) ->
    ping_muc_text:cut(<< <<(max(C, 32))>> || <<C>> <= Detail >>, 200);
detail_of(_) ->
    <<"no detail given">>.

%% Events of a batch that was accepted, apart from these
-spec log_rejected(map(), [ping_muc_outbox:event()]) -> ok.
log_rejected(#{<<"rejected">> := Rejected}, Events) when is_list(Rejected) ->
    _ = [?WARNING_MSG("ping_muc: event rejected (~ts): ~ts", [error_of(Item), text_of(Item, Events)])
         || Item <- lists:sublist(Rejected, ?MAX_REJECTED_LOGGED)],
    case length(Rejected) - ?MAX_REJECTED_LOGGED of
        More when More > 0 -> ?WARNING_MSG("ping_muc: ~b more events rejected", [More]);
        _ -> ok
    end;
log_rejected(_, _) ->
    ok.

error_of(#{<<"error">> := Error}) when is_binary(Error) -> ping_muc_text:cut(Error, 200);
error_of(_) -> <<"no error given">>.

text_of(#{<<"index">> := Index}, Events) when is_integer(Index), Index >= 0, Index < length(Events) ->
    maps:get(text, lists:nth(Index + 1, Events));
text_of(_, _) ->
    <<"unknown">>.

%% What the receiver knows of the contract. Older functions do not say. Before: its version so far. Returns its version.
-spec compare_versions(map(), binary() | none) -> binary() | none.
compare_versions(#{<<"version">> := Version}, Before) when is_binary(Version), Version =/= Before ->
    Ours = ping_muc_contract:version(),
    case re:run(Version, "^[0-9]+\\.[0-9]+\\.[0-9]+$", [{capture, none}, dollar_endonly]) of
        match when Version =/= Ours, byte_size(Version) =< 32 ->
            ?WARNING_MSG("ping_muc: The functions have version ~ts of the contract, and this module has ~ts. "
                         "Upgrade the older of the two", [Version, Ours]),
            Version;
        match -> Version;
        nomatch -> Before
    end;
compare_versions(_, Before) ->
    Before.

%% What to tell the operator about a webhook that was not accepted. Status 0: there was no answer
-spec complaint(non_neg_integer(), binary()) -> binary().
complaint(Status, Detail) ->
    unicode:characters_to_binary(text(Status, Detail)).

text(401, Detail) ->
    ["The webhook endpoint refuses our signature (", Detail, "). Check that it knows the secret in the options of ",
     "mod_ping_muc_webhook, and that the clocks of both sides are right"];
text(410, _) ->
    "The webhook endpoint was removed (410). Remove mod_ping_muc_webhook, or set a new webhook_url";
text(Status, Detail) when Status =:= 400; Status =:= 413 ->
    ["The webhook endpoint does not accept our events (", integer_to_binary(Status), ": ", Detail, ")"];
text(0, Detail) ->
    ["The webhook endpoint cannot be reached (", Detail, ")"];
text(Status, Detail) ->
    ["The webhook endpoint answers ", integer_to_binary(Status), " (", Detail, ")"].
