%%% HTTP: sends one webhook request, by httpc with a profile of its own
-module(ping_muc_http).

-export([start/0, post/4, cancel/1, answer/1]).

-export_type([answer/0]).

-define(PROFILE, ping_muc).
%% Milliseconds for a webhook request, connecting included. The other side is limited first: a receiver answers within
%% 20 seconds, its function is ended after 25, an HTTP API gives up after 30. An earlier retry would repeat what is
%% being stored.
-define(ANSWER_WITHIN, 35000).
-define(CONNECT_WITHIN, 10000).

%% status 0: no answer; body then says why. retry_after: seconds
-type answer() :: #{status := non_neg_integer(), body := binary(), retry_after := non_neg_integer() | undefined}.

-spec start() -> ok.
start() ->
    _ = application:ensure_all_started(ssl),
    _ = application:ensure_all_started(inets),
    _ = inets:start(httpc, [{profile, ?PROFILE}]),
    ok.

%% Sends a request. The answer comes as a message {http, {Id, Result}}; give Result to answer/1.
-spec post(binary(), binary(), [{string(), binary()}], binary()) -> {ok, reference()} | {error, term()}.
post(Url, Type, Headers, Body) ->
    Texts = [{Name, binary_to_list(Value)} || {Name, Value} <- Headers],
    Options = [{timeout, ?ANSWER_WITHIN}, {connect_timeout, ?CONNECT_WITHIN}, {autoredirect, false}
               | [{ssl, tls()} || <<"https:", _/binary>> <- [Url]]],
    Request = {binary_to_list(Url), Texts, binary_to_list(Type), Body},
    try
        httpc:request(post, Request, Options, [{sync, false}, {body_format, binary}, {full_result, true}], ?PROFILE)
    catch
        _:Reason -> {error, Reason}
    end.

tls() ->
    [{verify, verify_peer}, {cacerts, public_key:cacerts_get()}, {depth, 10},
     {customize_hostname_check, [{match_fun, public_key:pkix_verify_hostname_match_fun(https)}]}].

-spec cancel(reference()) -> ok.
cancel(Id) ->
    httpc:cancel_request(Id, ?PROFILE).

-spec answer(term()) -> answer().
answer({{_, Status, _}, Headers, Body}) ->
    #{status => Status, body => Body, retry_after => seconds(proplists:get_value("retry-after", Headers, ""))};
answer({error, Reason}) ->
    #{status => 0, body => reason(Reason), retry_after => undefined}.

%% A number of seconds. A date is not understood.
seconds(Text) ->
    case string:to_integer(Text) of
        {Seconds, ""} when is_integer(Seconds), Seconds >= 0 -> Seconds;
        _ -> undefined
    end.

%% In one word, because a reason can hold the whole request
reason(Reason) when is_atom(Reason) ->
    atom_to_binary(Reason, utf8);
reason({failed_connect, Details}) when is_list(Details) ->
    case [Why || {_, _, Why} <- Details] of
        [Why | _] -> <<"failed to connect: ", (reason(Why))/binary>>;
        [] -> <<"failed to connect">>
    end;
reason({tls_alert, {Alert, _}}) when is_atom(Alert) ->
    <<"TLS alert: ", (atom_to_binary(Alert, utf8))/binary>>;
reason(Reason) when is_tuple(Reason), tuple_size(Reason) > 0 ->
    reason(element(1, Reason));
reason(_) ->
    <<"unknown reason">>.
