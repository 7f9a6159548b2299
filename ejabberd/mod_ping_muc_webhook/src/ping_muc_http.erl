%%% HTTP: sends one webhook request, in a process of its own, and reads the answer
%%%
%%% Not with httpc: it repeats a request by itself after a 503, and on a connection that has just been closed. That
%%% would have the same timestamp. And it reads an answer of any size.
-module(ping_muc_http).

-export([start/0, post/3, cancel/1, parse/1]).

-export_type([answer/0]).

%% Milliseconds for a webhook request, connecting included. The other side is limited first: a receiver answers within
%% 20 seconds, its function is ended after 25, an HTTP API gives up after 30. An earlier retry would repeat what is
%% being stored.
-define(ANSWER_WITHIN, 35000).
-define(CONNECT_WITHIN, 10000).
-define(MAX_ANSWER, 1048576). % bytes

%% status 0: no answer; body then says why. retry_after: seconds
-type answer() :: #{status := non_neg_integer(), body := binary(), retry_after := non_neg_integer() | undefined}.

-spec start() -> ok.
start() ->
    _ = application:ensure_all_started(ssl),
    ok.

%% Sends a request, on a connection of its own. The answer comes as a message {http, Pid, answer()}.
-spec post(binary(), [{binary(), binary()}], binary()) -> pid().
post(Url, Headers, Body) ->
    Parent = self(),
    spawn(fun() ->
                  Answer = try request(Url, Headers, Body, now_ms() + ?ANSWER_WITHIN)
                           catch
                               throw:Why -> no_answer(Why);
                               _:_ -> no_answer("the request failed")
                           end,
                  Parent ! {http, self(), Answer}
          end).

-spec cancel(pid()) -> ok.
cancel(Pid) ->
    true = exit(Pid, kill),
    ok.

no_answer(Why) ->
    #{status => 0, body => unicode:characters_to_binary(Why), retry_after => undefined}.

request(Url, Headers, Body, Deadline) ->
    #{scheme := Scheme, host := Host} = Parts = uri_string:parse(Url),
    Port = maps:get(port, Parts, case Scheme of <<"https">> -> 443; _ -> 80 end),
    Path = case Parts of #{path := <<>>} -> <<"/">>; #{path := Some} -> Some end,
    Target = case Parts of #{query := Query} -> [Path, $?, Query]; _ -> Path end,
    Name = case binary:match(Host, <<":">>) of nomatch -> Host; _ -> [$[, Host, $]] end,
    Lines = [{<<"host">>, [Name, $:, integer_to_binary(Port)]}, {<<"connection">>, <<"close">>},
             {<<"content-length">>, integer_to_binary(byte_size(Body))} | Headers],
    Request = ["POST ", Target, " HTTP/1.1\r\n", [[Key, ": ", Value, "\r\n"] || {Key, Value} <- Lines], "\r\n", Body],
    {Module, Socket} = connect(Scheme, binary_to_list(Host), Port),
    ok = done(Module:send(Socket, Request)),
    Answer = read(Module, Socket, <<>>, Deadline),
    _ = Module:close(Socket),
    Answer.

connect(Scheme, Host, Port) ->
    Options = [binary, {active, false}, {send_timeout, ?ANSWER_WITHIN}],
    Address = case inet:parse_address(Host) of {ok, Ip} -> Ip; _ -> Host end,
    Families = case Address of {_, _, _, _} -> [inet]; _ when is_tuple(Address) -> [inet6]; _ -> [inet, inet6] end,
    {Module, All} = case Scheme of
                        <<"https">> -> {ssl, tls(Host) ++ Options};
                        _ -> {gen_tcp, Options}
                    end,
    connect(Module, Address, Port, All, Families).

connect(Module, Address, Port, Options, [Family | Others]) ->
    case Module:connect(Address, Port, [Family | Options], ?CONNECT_WITHIN) of
        {ok, Socket} -> {Module, Socket};
        {error, nxdomain} when Others =/= [] -> connect(Module, Address, Port, Options, Others);
        Error -> done(Error)
    end.

tls(Host) ->
    [{verify, verify_peer}, {cacerts, public_key:cacerts_get()}, {depth, 10}, {server_name_indication, Host},
     {customize_hostname_check, [{match_fun, public_key:pkix_verify_hostname_match_fun(https)}]}].

done(ok) -> ok;
done({error, Reason}) when is_atom(Reason) -> throw(inet:format_error(Reason));
done({error, {tls_alert, {Alert, _}}}) -> throw(io_lib:format("TLS: ~p", [Alert]));
done({error, _}) -> throw("the connection failed").

read(Module, Socket, Before, Deadline) ->
    case Module:recv(Socket, 0, max(1, Deadline - now_ms())) of
        {ok, Data} when byte_size(Before) + byte_size(Data) > ?MAX_ANSWER ->
            throw("the answer is too large");
        {ok, Data} ->
            All = <<Before/binary, Data/binary>>,
            case parse(All) of
                {ok, Answer} -> Answer;
                _ -> read(Module, Socket, All, Deadline)
            end;
        {error, closed} ->
            case parse(Before) of
                {ok, Answer} -> Answer;
                {until_closed, Answer} -> Answer;
                more -> throw("the connection was closed without an answer")
            end;
        Error ->
            done(Error)
    end.

%% An answer as far as it has arrived. until_closed: it ends when the connection is closed.
-spec parse(binary()) -> {ok | until_closed, answer()} | more.
parse(Data) ->
    case erlang:decode_packet(http_bin, Data, []) of
        {ok, {http_response, _, Status, _}, Rest} ->
            case headers(Rest, #{}) of
                {_, _} = Parsed when Status >= 100, Status < 200 -> parse(element(2, Parsed)); % 100 Continue
                {Headers, Body} -> body(Status, Headers, Body);
                more -> more
            end;
        {more, _} ->
            more;
        _ ->
            throw("the answer is not HTTP")
    end.

headers(Data, Headers) ->
    case erlang:decode_packet(httph_bin, Data, []) of
        {ok, {http_header, _, Name, _, Value}, Rest} ->
            Key = if is_atom(Name) -> atom_to_binary(Name, utf8); true -> Name end,
            headers(Rest, Headers#{ping_muc_text:lowercase(Key) => ping_muc_text:lowercase(Value)});
        {ok, http_eoh, Rest} -> {Headers, Rest};
        {more, _} -> more;
        _ -> throw("the answer is not HTTP")
    end.

body(Status, Headers, Body) ->
    Answer = fun(Text) -> #{status => Status, body => Text,
                            retry_after => number(maps:get(<<"retry-after">>, Headers, <<>>))} end,
    case {Headers, number(maps:get(<<"content-length">>, Headers, <<>>))} of
        {#{<<"transfer-encoding">> := <<"chunked">>}, _} ->
            case chunks(Body, []) of
                more -> more;
                Whole -> {ok, Answer(Whole)}
            end;
        {_, Length} when is_integer(Length), byte_size(Body) >= Length -> {ok, Answer(binary:part(Body, 0, Length))};
        {_, Length} when is_integer(Length) -> more;
        _ -> {until_closed, Answer(Body)}
    end.

chunks(Data, Before) ->
    case binary:split(Data, <<"\r\n">>) of
        [Line, Rest] ->
            [Hex | _] = binary:split(Line, [<<";">>, <<" ">>]),
            case try binary_to_integer(Hex, 16) catch error:badarg -> throw("the answer is not HTTP") end of
                0 -> iolist_to_binary(lists:reverse(Before));
                Size ->
                    case Rest of
                        <<Chunk:Size/binary, "\r\n", More/binary>> -> chunks(More, [Chunk | Before]);
                        _ -> more
                    end
            end;
        _ ->
            more
    end.

%% A number of seconds or bytes. A date is not understood.
number(Text) ->
    case string:to_integer(Text) of
        {Number, <<>>} when is_integer(Number), Number >= 0 -> Number;
        _ -> undefined
    end.

now_ms() ->
    erlang:monotonic_time(millisecond).
