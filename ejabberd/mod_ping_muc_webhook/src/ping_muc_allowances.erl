%%% Allowances: how many checks errors of rooms can cause at once, and per second in the long run: checks of single
%%% rooms for one remote host and for one user, checks of a whole host, and checks in all. Each costs the operator
%%% money. A check whose pings are not answered runs for minutes, and delays others. If all are answered, most of its
%%% cost is given back. Times are monotonic seconds.
-module(ping_muc_allowances).

-export([new/0, of_room/2, of_host/1, wait/3, spend/4, has/3, sweep/2, given_back/0]).

-export_type([allowances/0, account/0]).

-define(GIVEN_BACK, (3 / 4)).

-type account() :: {host | whole | user | all, binary()}.
%% Without an entry, the allowance is full. So there are at most as many entries as checks.
-opaque allowances() :: #{account() => {number(), number()}}.

%% At once, and per second
bound(host) -> {10, 6 / 3600};
bound(whole) -> {1, 2 / 3600};
bound(user) -> {60, 6 / 3600};
bound(all) -> {120, 12 / 3600}.

-spec new() -> allowances().
new() ->
    #{}.

%% What a check of a room on account of a session uses
-spec of_room(binary(), binary()) -> [account()].
of_room(Room, User) ->
    [_, Remote] = binary:split(Room, <<"@">>),
    [Bare | _] = binary:split(User, <<"/">>),
    [{host, Remote}, {user, Bare}, {all, <<>>}].

%% What a check of a whole host uses
-spec of_host(binary()) -> [account()].
of_host(Remote) ->
    [{whole, Remote}, {all, <<>>}].

-spec given_back() -> float().
given_back() ->
    ?GIVEN_BACK.

%% Seconds until a check that uses these is allowed; 0: now
-spec wait([account()], number(), allowances()) -> number().
wait(Accounts, Now, Allowances) ->
    lists:max([0 | [(1 - left(Account, Now, Allowances)) / element(2, bound(Kind))
                    || {Kind, _} = Account <- Accounts]]).

-spec has(account(), number(), allowances()) -> boolean().
has(Account, Now, Allowances) ->
    left(Account, Now, Allowances) >= 1.

%% Count: of checks; negative to give back
-spec spend([account()], number(), number(), allowances()) -> allowances().
spend(Accounts, Count, Now, Allowances) ->
    lists:foldl(fun(Account, Before) -> Before#{Account => {left(Account, Now, Before) - Count, Now}} end,
                Allowances, Accounts).

%% Drops those that are full again.
-spec sweep(number(), allowances()) -> allowances().
sweep(Now, Allowances) ->
    IsUsed = fun({Kind, _} = Account, _) -> left(Account, Now, Allowances) < element(1, bound(Kind)) end,
    maps:filter(IsUsed, Allowances).

left({Kind, _} = Account, Now, Allowances) ->
    {AtOnce, Rate} = bound(Kind),
    case Allowances of
        #{Account := {Left, At}} -> min(AtOnce, Left + (Now - At) * Rate);
        _ -> AtOnce
    end.
