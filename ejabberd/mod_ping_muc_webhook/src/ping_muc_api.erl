%%% The stanza API: POST /ping_muc/stanzas, for the receiver's pings, re-entries and notices
%%%
%%% Here is what a request must be before any of it is read: signed, new, of the right type and size.
-module(ping_muc_api).

-export([process/2]).

-export_type([response/0]).

-include("logger.hrl").
-include("ejabberd_http.hrl").

-define(MAX_BODY, (1024 * 1024)). % bytes
-define(MAX_TIME, 360000). % ms of a request; its own time-out is 300 seconds at most
-define(WARN_AGAIN, 60). % seconds after which a refusal with the same status may be a warning again

%% The reason phrase is there because ejabberd has none for some statuses, and crashes.
-type response() :: {integer(), [{binary(), binary()}], iodata()}
                  | {integer(), Phrase :: binary(), [{binary(), binary()}], iodata()}.

%% The path below the one in request_handlers: stanzas, or a host and stanzas, for a server whose HTTP name is not the
%% name of a host
-spec process([binary()], #request{}) -> response().
process(Path, Request) ->
    Failed = {503, title(503), [{<<"Retry-After">>, <<"1">>}], <<>>},
    ping_muc_log:safely(request, fun() -> route(Path, Request) end, Failed).

route([Name, <<"stanzas">>], Request) -> serve(ping_muc_host:context(prepped(Name)), Request);
route([<<"stanzas">>], #request{host = Name} = Request) -> serve(by_name(Name), Request);
route(_, _) -> not_found().

prepped(Name) ->
    case jid:nameprep(Name) of
        error -> <<>>;
        Prepped -> Prepped
    end.

%% A name that is no host's stands for the only host that has the module.
by_name(Name) ->
    case {ping_muc_host:context(Name), ping_muc_host:all()} of
        {undefined, [Only]} -> ping_muc_host:context(Only);
        {Context, _} -> Context
    end.

not_found() ->
    {404, [{<<"Content-Type">>, <<"text/plain">>}],
     <<"Nothing is here. The stanza API is at <path>/stanzas, or at <path>/<host>/stanzas\n">>}.

serve(undefined, _) ->
    not_found();
serve(Context, #request{method = 'POST', data = Body, headers = Headers}) ->
    case check(Context, Headers, Body) of
        {ok, Key} -> run(Context, Body, Key);
        {error, Status, Why} -> problem(Context, Status, Why)
    end;
serve(_, _) ->
    {405, [{<<"Allow">>, <<"POST">>}, {<<"Content-Type">>, <<"text/plain">>}], <<"Only POST is allowed here\n">>}.

check(_, _, Body) when byte_size(Body) > ?MAX_BODY ->
    {error, 413, <<"the body has more than 1048576 bytes">>};
check(#{settings := #{secrets := Secrets}}, Headers, Body) ->
    Id = header(<<"Webhook-Id">>, Headers),
    Timestamp = header(<<"Webhook-Timestamp">>, Headers),
    Signed = {Id, Timestamp, header(<<"Webhook-Signature">>, Headers)},
    case ping_muc_signature:check(Secrets(), Signed, Body, os:system_time(second)) of
        {error, Why} ->
            {error, 401, Why};
        ok ->
            case is_xmpp(header('Content-Type', Headers)) of
                true -> {ok, ping_muc_replays:key(Id, Timestamp)};
                false -> {error, 415, <<"the content type must be application/xmpp+xml">>}
            end
    end.

header(Name, Headers) ->
    proplists:get_value(Name, Headers).

is_xmpp(undefined) ->
    false;
is_xmpp(Type) ->
    [Media | _] = binary:split(Type, [<<";">>, <<" ">>, <<"\t">>]),
    ping_muc_text:lowercase(Media) =:= <<"application/xmpp+xml">>.

run(Context, Body, Key) ->
    Parent = self(),
    Tag = make_ref(),
    Run = fun() -> Parent ! {Tag, ping_muc_log:safely(request, fun() -> ping_muc_requests:run(Context, Body, Key) end,
                                                      {error, 503, <<"the request failed: see ejabberd's log">>})} end,
    {Pid, Monitor} = spawn_monitor(Run),
    Result = receive
                 {Tag, Answer} -> Answer;
                 {'DOWN', Monitor, process, Pid, _} -> {error, 503, <<"the request was aborted">>}
             after ?MAX_TIME ->
                     exit(Pid, kill),
                     {error, 503, <<"the request took too long">>}
             end,
    _ = erlang:demonitor(Monitor, [flush]),
    case Result of
        {ok, Text} ->
            note(Context, 200, <<>>),
            {200, [{<<"Content-Type">>, <<"application/xmpp+xml">>}, date_header()], Text};
        {error, Status, Why} ->
            problem(Context, Status, Why)
    end.

%% A problem document (RFC 9457)
problem(Context, Status, Detail) ->
    note(Context, Status, Detail),
    Title = title(Status),
    Document = #{type => <<"about:blank">>, title => Title, status => Status, detail => Detail},
    {Status, Title,
     [{<<"Content-Type">>, <<"application/problem+json">>}, date_header()
      | [{<<"Retry-After">>, <<"1">>} || Status =:= 429 orelse Status =:= 503]],
     ping_muc_json:encode(Document)}.

%% ejabberd does not say what time it is. The receiver compares the clocks.
date_header() ->
    {<<"Date">>, list_to_binary(httpd_util:rfc1123_date())}.

title(400) -> <<"Bad Request">>;
title(401) -> <<"Unauthorized">>;
title(413) -> <<"Content Too Large">>;
title(415) -> <<"Unsupported Media Type">>;
title(429) -> <<"Too Many Requests">>;
title(503) -> <<"Service Unavailable">>.

%% The first of several equal refusals is a warning for the operator. The others are for debugging.
note(#{notes := Notes}, Status, Detail) ->
    Now = erlang:monotonic_time(second),
    Last = look_up(last, 200, Notes),
    true = ets:insert(Notes, {last, Status}),
    Warned = look_up(Status, Now - ?WARN_AGAIN, Notes),
    case Status =/= 200 andalso Status =/= Last andalso Now - Warned >= ?WARN_AGAIN of
        true ->
            true = ets:insert(Notes, {Status, Now}),
            ?WARNING_MSG("ping_muc: a request to the stanza API was refused (~b: ~ts). ~ts",
                         [Status, Detail, advice(Status)]);
        false ->
            ?DEBUG("ping_muc: a request to the stanza API was answered with ~b ~ts", [Status, Detail])
    end.

look_up(Key, Default, Notes) ->
    case ets:lookup(Notes, Key) of
        [{_, Value}] -> Value;
        [] -> Default
    end.

advice(401) ->
    "Check that the receiver knows the secret in the options of mod_ping_muc_webhook, and that the clocks of both "
        "sides are right";
advice(Status) when Status =:= 429; Status =:= 503 ->
    "The receiver tries again by itself. If this continues, look for a remote host that answers slowly";
advice(_) ->
    "The sender is not the receiver of our webhooks, or its release does not fit this one".
