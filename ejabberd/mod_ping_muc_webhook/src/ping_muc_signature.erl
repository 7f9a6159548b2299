%%% Signatures of both directions, as Standard Webhooks has them
-module(ping_muc_signature).

-export([sign/4, check/4, tolerance/0]).

-define(TOLERANCE, 300). % seconds by which a signed timestamp may differ from our clock

-spec tolerance() -> pos_integer().
tolerance() ->
    ?TOLERANCE.

%% The value of webhook-signature: a signature with each of the keys
-spec sign([binary()], binary(), binary(), binary()) -> binary().
sign(Keys, Id, Timestamp, Body) ->
    iolist_to_binary(lists:join(<<" ">>, signatures(Keys, Id, Timestamp, Body))).

signatures(Keys, Id, Timestamp, Body) ->
    [<<"v1,", (base64:encode(crypto:mac(hmac, sha256, Key, [Id, $., Timestamp, $., Body])))/binary>> || Key <- Keys].

%% Headers: webhook-id, webhook-timestamp and webhook-signature; undefined for one that is missing. Now: seconds since
%% the epoch. Returns ok if a live key has signed the request, and its timestamp is within the tolerance; otherwise
%% what is wrong.
-spec check([binary()], {binary() | undefined, binary() | undefined, binary() | undefined}, binary(), integer()) ->
    ok | {error, binary()}.
check(Keys, {Id, Timestamp, Signature}, Body, Now)
  when is_binary(Id), is_binary(Timestamp), is_binary(Signature) ->
    case {is_id(Id), is_timestamp(Timestamp)} of
        {false, _} ->
            {error, <<"webhook-id must be 1 to 255 printable ASCII characters">>};
        {_, false} ->
            {error, <<"webhook-timestamp must be whole seconds since the epoch">>};
        _ ->
            Expected = signatures(Keys, Id, Timestamp, Body),
            Given = binary:split(Signature, [<<" ">>, <<"\t">>], [global, trim_all]),
            case [E || E <- Expected, G <- Given, is_equal(E, G)] of
                [] -> {error, <<"webhook-signature matches no live secret">>};
                _ -> check_time(binary_to_integer(Timestamp) - Now)
            end
    end;
check(_Keys, _Headers, _Body, _Now) ->
    {error, <<"webhook-id, webhook-timestamp and webhook-signature are required">>}.

%% In constant time
is_equal(A, B) when byte_size(A) =:= byte_size(B) -> crypto:hash_equals(A, B);
is_equal(_, _) -> false.

is_id(Id) ->
    byte_size(Id) > 0 andalso byte_size(Id) =< 255 andalso << <<C>> || <<C>> <= Id, C >= 32, C =< 126 >> =:= Id.

is_timestamp(Text) ->
    byte_size(Text) > 0 andalso byte_size(Text) =< 10 andalso << <<C>> || <<C>> <= Text, C >= $0, C =< $9 >> =:= Text.

check_time(Ahead) when abs(Ahead) =< ?TOLERANCE ->
    ok;
check_time(Ahead) ->
    Side = if Ahead > 0 -> <<"ahead of">>; true -> <<"behind">> end,
    {error, iolist_to_binary(
              io_lib:format("webhook-timestamp is ~b seconds ~s this server's clock, ~b are tolerated: "
                            "check both clocks", [abs(Ahead), Side, ?TOLERANCE]))}.
