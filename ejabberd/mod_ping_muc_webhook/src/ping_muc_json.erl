%%% JSON, by the library that the ejabberd at hand has: misc:json_encode since 24.06, jiffy before
-module(ping_muc_json).

-export([encode/1, decode/1]).

-dialyzer({nowarn_function, [encode/1, decode/1]}).

-spec encode(map()) -> binary().
encode(Term) ->
    case has_misc() of
        true -> iolist_to_binary(apply(misc, json_encode, [Term]));
        false -> iolist_to_binary(apply(jiffy, encode, [Term]))
    end.

%% Objects become maps. Returns error if the text is not JSON.
-spec decode(binary()) -> {ok, term()} | error.
decode(Text) ->
    try
        case has_misc() of
            true -> {ok, apply(misc, json_decode, [Text])};
            false -> {ok, apply(jiffy, decode, [Text, [return_maps]])}
        end
    catch
        _:_ -> error
    end.

has_misc() ->
    _ = code:ensure_loaded(misc),
    erlang:function_exported(misc, json_encode, 1).
