%%% Text from other hosts, which can be any bytes
-module(ping_muc_text).

-export([cut/2, escape/1, is_utf8/1, count/2, lowercase/1]).

%% The text, cut to at most Max bytes; empty if it is not UTF-8
-spec cut(binary(), non_neg_integer()) -> binary().
cut(Text, Max) ->
    Part = binary:part(Text, 0, min(Max, byte_size(Text))),
    case unicode:characters_to_binary(Part) of
        Valid when is_binary(Valid) -> Valid;
        {incomplete, Valid, _} when byte_size(Text) > Max -> Valid;
        _ -> <<>>
    end.

%% As the content of an XML element or attribute
-spec escape(binary()) -> binary().
escape(Text) ->
    fxml:crypt(Text).

-spec is_utf8(binary()) -> boolean().
is_utf8(Text) ->
    is_binary(unicode:characters_to_binary(Text)).

%% How often one of the characters occurs
-spec count(binary(), [byte()]) -> non_neg_integer().
count(Text, Characters) ->
    length(binary:matches(Text, [<<C>> || C <- Characters])).

%% ASCII letters in lower case. string:lowercase/1 crashes if the text is not UTF-8, as a header's value need not be.
-spec lowercase(binary()) -> binary().
lowercase(Text) ->
    << <<(if C >= $A, C =< $Z -> C + 32; true -> C end)>> || <<C>> <= Text >>.
