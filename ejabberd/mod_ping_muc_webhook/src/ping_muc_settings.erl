%%% Settings: the options of the module, their validators and their defaults
%%%
%%% A wrong value prevents the configuration from being loaded. If ejabberd runs, it keeps the previous one.
-module(ping_muc_settings).

-export([opt_type/1, options/0, read/1]).

-export_type([settings/0]).

%% Durations are whole seconds here. secrets: returns the keys, the current one first. It is a function, because a crash
%% report with settings in it does not show what a function holds. exclude: a set of hosts.
-type settings() :: #{webhook_url := binary(), secrets := fun(() -> [binary()]), delay := pos_integer(),
                      timeout := pos_integer(), patience := non_neg_integer(), refresh := pos_integer(),
                      silence := non_neg_integer(), heartbeat := non_neg_integer(),
                      notice_limit := non_neg_integer(), notice_share := number(), exclude := #{binary() => true},
                      dry_run := boolean(), reenter := boolean(), reenter_limit := pos_integer(),
                      reenter_occupants := boolean()}.

-spec opt_type(atom()) -> econf:validator().
opt_type(webhook_url) -> econf:and_then(econf:binary(), fun check_url/1);
opt_type(secret) -> econf:and_then(econf:list_or_single(fun check_secret/1), fun check_count/1);
opt_type(delay) -> seconds(1, 86400);
opt_type(timeout) -> seconds(1, 300);
opt_type(patience) -> seconds(0, 86400);
opt_type(refresh) -> seconds(1, 259200);
opt_type(silence) -> interval(10, 604800);
opt_type(heartbeat) -> interval(60, 600); % after 900 seconds the host counts as silent
opt_type(notice_limit) -> econf:int(0, 1000000);
opt_type(notice_share) -> econf:and_then(econf:number(0), fun check_share/1);
opt_type(exclude) -> econf:list_or_single(econf:domain());
opt_type(dry_run) -> econf:bool();
opt_type(reenter) -> econf:bool();
opt_type(reenter_limit) -> econf:int(1, 2000); % as many occupants as are stored of one room
opt_type(reenter_occupants) -> econf:bool().

%% Durations in milliseconds, as ejabberd has them. An option without a default is required.
-spec options() -> [{atom(), term()} | atom()].
options() ->
    [webhook_url,
     secret,
     {delay, timer:seconds(60)},
     {timeout, timer:seconds(60)},
     {patience, timer:seconds(300)},
     {refresh, timer:hours(24)},
     {silence, timer:hours(6)},
     {heartbeat, timer:seconds(300)},
     {notice_limit, 0},
     {notice_share, 0.5},
     {exclude, []},
     {dry_run, false},
     {reenter, false},
     {reenter_limit, 500},
     {reenter_occupants, true}].

-spec read(gen_mod:opts()) -> settings().
read(Options) ->
    Seconds = fun(Name) -> gen_mod:get_opt(Name, Options) div 1000 end,
    Plain = [webhook_url, notice_limit, notice_share, dry_run, reenter, reenter_limit, reenter_occupants],
    Secrets = [base64:decode(pad(Text)) || <<"whsec_", Text/binary>> <- gen_mod:get_opt(secret, Options)],
    maps:merge(
      maps:merge(maps:from_list([{Name, gen_mod:get_opt(Name, Options)} || Name <- Plain]),
                 maps:from_list([{Name, Seconds(Name)}
                                 || Name <- [delay, timeout, patience, refresh, silence, heartbeat]])),
      #{secrets => fun() -> Secrets end,
        exclude => maps:from_list([{Host, true} || Host <- gen_mod:get_opt(exclude, Options)])}).

%% Durations

seconds(Min, Max) ->
    in_seconds(Min, Max, io_lib:format("Expected whole seconds from ~b to ~b", [Min, Max])).

%% 0, or from Min to Max
interval(Min, Max) ->
    Text = io_lib:format("Expected 0 for never, or whole seconds from ~b to ~b", [Min, Max]),
    econf:either(econf:int(0, 0), in_seconds(Min, Max, Text)).

in_seconds(Min, Max, Text) ->
    econf:and_then(econf:either(econf:int(0, 0), econf:timeout(second)),
                   fun(Ms) when Ms rem 1000 =:= 0, Ms >= Min * 1000, Ms =< Max * 1000 -> Ms;
                      (Ms) when Ms rem 1000 =:= 0 -> fail("~s, got ~b", [Text, Ms div 1000]);
                      (Ms) -> fail("~s, got ~p", [Text, Ms / 1000])
                   end).

%% Others

check_share(Share) when Share =< 1 -> Share;
check_share(Share) -> fail("Expected a number from 0 to 1, got ~p", [Share]).

check_url(Url) ->
    Need = "Expected an https URL, for example https://example.execute-api.us-east-1.amazonaws.com/webhooks",
    case uri_string:parse(Url) of
        #{scheme := <<"https">>, host := Host} when Host =/= <<>> ->
            Url;
        #{scheme := <<"http">>, host := Host} ->
            case is_loopback(Host) of
                true -> Url;
                false -> fail("~s; plain http is for loopback addresses only", [Need])
            end;
        _ ->
            fail("~s", [Need])
    end.

is_loopback(<<"localhost">>) ->
    true;
is_loopback(Host) ->
    case inet:parse_strict_address(binary_to_list(Host)) of
        {ok, {127, _, _, _}} -> true;
        {ok, {0, 0, 0, 0, 0, 0, 0, 1}} -> true;
        _ -> false
    end.

%% The value must never reach a log, even if it is malformed.
check_secret(Value) ->
    Text = try iolist_to_binary(Value) catch error:badarg -> <<>> end,
    case Text of
        <<"whsec_", Encoded/binary>> ->
            try base64:decode(pad(Encoded)) of
                Key when byte_size(Key) >= 24, byte_size(Key) =< 64 -> check_canonical(Key, Encoded, Text);
                Key -> fail("The secret holds ~b bytes, expected 24 to 64", [byte_size(Key)])
            catch
                error:_ -> fail_secret()
            end;
        _ ->
            fail_secret()
    end.

check_count(Secrets) when length(Secrets) =:= 1; length(Secrets) =:= 2 -> Secrets;
check_count(Secrets) -> fail("Expected one secret, or two during a rotation, got ~b", [length(Secrets)]).

check_canonical(Key, Encoded, Text) ->
    case strip(base64:encode(Key)) =:= strip(Encoded) of
        true -> Text;
        false -> fail_secret()
    end.

-spec fail_secret() -> no_return().
fail_secret() ->
    fail("Expected whsec_ and the base64 of 24 to 64 random bytes: echo \"whsec_$(openssl rand -base64 32)\"", []).

strip(Encoded) ->
    string:trim(Encoded, trailing, "=").

pad(Encoded) ->
    Text = strip(Encoded),
    <<Text/binary, (binary:copy(<<"=">>, (4 - byte_size(Text) rem 4) rem 4))/binary>>.

-spec fail(string(), [term()]) -> no_return().
fail(Format, Arguments) ->
    econf:fail({invalid_syntax, lists:flatten(io_lib:format(Format, Arguments))}).
