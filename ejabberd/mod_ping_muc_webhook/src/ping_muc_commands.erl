%%% Commands: what an operator can ask the module, or have it do, with ejabberdctl. Each applies to all hosts that have
%%% the module.
-module(ping_muc_commands).

-export([register/1, unregister/1, status/0, joins/1, check/1, announce/0]).

-include("ejabberd_commands.hrl").

-define(MAX_SHOWN, 100). % joins that one command prints for a host

%% The module runs for a host. One set of commands serves all hosts.
-spec register(binary()) -> ok.
register(Host) ->
    if_only(Host, fun ejabberd_commands:register_commands/1).

%% The module stops for a host.
-spec unregister(binary()) -> ok.
unregister(Host) ->
    if_only(Host, fun ejabberd_commands:unregister_commands/1).

if_only(Host, Fun) ->
    _ = [Fun(specs()) || ping_muc_host:all() -- [Host] =:= []],
    ok.

specs() ->
    [#ejabberd_commands{name = ping_muc_status, tags = [muc, s2s],
                        desc = "Show the state of webhooks, queue, joins and closes",
                        longdesc = "The result of the last webhook, how many events wait and for how long, how many "
                            "joins there are, how many closes are held back, and whether the dry run is on.",
                        module = ?MODULE, function = status, args = [], result = lines(),
                        result_desc = "Lines of text",
                        result_example = ["example.net", "  Webhooks: accepted: the last one 4 s ago"]},
     #ejabberd_commands{name = ping_muc_joins, tags = [muc, s2s],
                        desc = "Show which users are in which rooms on other servers",
                        longdesc = "Shows 100 of them for each host.",
                        module = ?MODULE, function = joins, args = [{part, binary}], result = lines(),
                        args_desc = ["A part of a user, a room or a nick; or: all"],
                        args_example = [<<"muc.example.org">>], result_desc = "Lines of text",
                        result_example = ["example.net",
                                          "  user@example.net/phone in room@muc.example.org as nick, for 5 min"]},
     #ejabberd_commands{name = ping_muc_check, tags = [muc, s2s],
                        desc = "Request a check of a remote host, or of one room, now",
                        longdesc = "The rooms are asked whether the users of this server are still in them. Users who "
                            "are still in their room do not notice this. No connection is closed.",
                        module = ?MODULE, function = check, args = [{target, binary}], result = {res, restuple},
                        args_desc = ["A remote host, or a room on it"],
                        args_example = [<<"room@muc.example.org">>],
                        result_example = {ok, <<"A check of room@muc.example.org is requested for example.net">>}},
     #ejabberd_commands{name = ping_muc_announce, tags = [muc, s2s],
                        desc = "Report all joins again, and a heartbeat, now",
                        longdesc = "For a receiver that has lost what it knew.",
                        module = ?MODULE, function = announce, args = [], result = {res, restuple},
                        result_example = {ok, <<"2 joins and a heartbeat are being reported for example.net">>}}].

lines() ->
    {lines, {list, {line, string}}}.

-spec status() -> [string()].
status() ->
    for_all(fun(Context) -> [text(Line) || Line <- status(Context)] end).

status(#{settings := #{dry_run := DryRun}} = Context) ->
    #{length := Length, age := Age, held := Held} = Status = ping_muc_sender:status(Context),
    [["  Webhooks: ", webhooks(Status)],
     ["  Queue: ", case Length of
                       0 -> "empty";
                       _ -> [plural(Length, "event"), ", the oldest has waited for ", duration(Age)]
                   end],
     ["  Joins: ", integer_to_list(ping_muc_joins:count(Context)), ", in rooms on ",
      plural(ping_muc_joins:remotes(Context), "remote host")],
     ["  Closes that wait until the option 'delay' allows another report: ", integer_to_list(Held)],
     ["  Dry run: ", if DryRun -> "on: nobody is notified or brought back"; true -> "off" end]].

webhooks(#{webhooks := Webhooks, accepted_at := AcceptedAt, complaint := Complaint}) ->
    Last = case AcceptedAt of
               undefined -> "none since the module was loaded";
               _ -> ["the last one ", duration(now_s() - AcceptedAt), " ago"]
           end,
    case Webhooks of
        failing -> [Complaint, "; accepted: ", Last];
        _ -> ["accepted: ", Last]
    end.

-spec joins(binary()) -> [string()].
joins(Argument) ->
    Text = case Argument of <<"all">> -> <<>>; _ -> Argument end,
    for_all(fun(Context) -> joins_of(Context, Text) end).

joins_of(Context, Text) ->
    Find = fun(#{user := User, room := Room, nick := Nick, at := At}, Found) ->
                   Names = <<User/binary, " in ", Room/binary, " as ", Nick/binary>>,
                   case Text =:= <<>> orelse binary:match(Names, Text) =/= nomatch of
                       true -> [{Names, At} | Found];
                       false -> Found
                   end
           end,
    case lists:sort(ping_muc_joins:fold(Find, [], Context)) of
        [] when Text =:= <<>> ->
            ["  No user is in a remote room"];
        [] ->
            [text(["  No user, room or nick has ", Text, " in its name"])];
        Found ->
            More = length(Found) - ?MAX_SHOWN,
            [text(["  ", Names, ", for ", duration(now_s() - At / 1.0e6)])
             || {Names, At} <- lists:sublist(Found, ?MAX_SHOWN)]
                ++ [text(io_lib:format("  and ~b more: name a part of a user, a room or a nick", [More])) || More > 0]
    end.

-spec check(binary()) -> {ok | error, binary()}.
check(Target) ->
    case try jid:tolower(jid:decode(Target)) catch _:_ -> error end of
        {Node, Remote, <<>>} when Remote =/= <<>> ->
            Room = case Node of <<>> -> undefined; _ -> <<Node/binary, $@, Remote/binary>> end,
            Hosts = [request_check(Host, Remote, Room) || Host <- ping_muc_host:all(), has_joins(Host, Remote, Room)],
            done(Hosts, "A check of ~ts is requested for ~ts", [Target],
                 <<"No user of this server is in a room there: ", Target/binary>>);
        _ ->
            {error, <<"Name the remote host or the room to check, for example muc.example.org or "
                      "room@muc.example.org">>}
    end.

has_joins(Host, Remote, undefined) -> ping_muc_joins:has_remote(ping_muc_host:context(Host), Remote);
has_joins(Host, _, Room) -> ping_muc_joins:in_room(ping_muc_host:context(Host), Room) =/= [].

request_check(Host, Remote, Room) ->
    ping_muc_sender:check(ping_muc_host:context(Host), Remote, Room, <<"operator">>),
    Host.

-spec announce() -> {ok | error, binary()}.
announce() ->
    Contexts = [ping_muc_host:context(Host) || Host <- ping_muc_host:all()],
    lists:foreach(fun(Context) ->
                          ping_muc_renewals:announce(Context),
                          ping_muc_sender:beat(Context)
                  end, Contexts),
    Count = lists:sum([ping_muc_joins:count(Context) || Context <- Contexts]),
    done([Host || #{host := Host} <- Contexts], "~ts and a heartbeat are being reported for ~ts",
         [plural(Count, "join")], <<"No host has the module">>).

done([], _, _, Error) -> {error, Error};
done(Hosts, Format, Arguments, _) -> {ok, bin(io_lib:format(Format, Arguments ++ [lists:join(", ", Hosts)]))}.

%% The lines of each host, below its name
for_all(Fun) ->
    lists:append([[text(Host) | Fun(ping_muc_host:context(Host))] || Host <- ping_muc_host:all()]).

plural(1, Noun) -> ["1 ", Noun];
plural(Count, Noun) -> [integer_to_list(Count), " ", Noun, "s"].

%% In the two largest units that people use
duration(Seconds) ->
    case max(0, trunc(Seconds)) of
        Whole when Whole < 60 -> io_lib:format("~b s", [Whole]);
        Whole when Whole < 3600 -> io_lib:format("~b min", [Whole div 60]);
        Whole -> io_lib:format("~b h ~b min", [Whole div 3600, Whole rem 3600 div 60])
    end.

bin(Data) -> unicode:characters_to_binary(Data).

text(Data) -> unicode:characters_to_list(Data).

now_s() ->
    os:system_time(millisecond) / 1000.
