%%% Folds: if one join changes again and again, its events wait, each longer than the one before, and the newest
%%% replaces those that wait. Remote rooms can change a join, and every event costs the operator money. Times are
%%% seconds.
-module(ping_muc_folds).

-export([new/0, report/4, due/4, drop/2, sweep/2, waiting/1]).

-export_type([folds/0, change/0, action/0]).

-define(AT_ONCE, 4). % events about one join that never wait: in, out, in again, another nick
%% Seconds that an event waits at most, and part of the delay: it arrives before a check that follows.
-define(LONGEST, 45).
-define(SHARE, 0.75).
-define(MARGIN, 5).        % seconds that are left of the delay if it waits for others
-define(TOGETHER, 10).     % seconds: events that wait longer than this are sent together, in one request
-define(QUIET, 3600).      % seconds without a change after which the count starts again
-define(LONGEST_TURN, 900). % seconds that an event waits for its turn, if there are too many
%% Events that had to wait, of one remote host, at once and per second. More of them wait for their turn.
-define(ALLOWED, 10000).
-define(RATE, 2).
-define(MAX_FOLDS, 100000). % joins that are stored; if there are more, what waits of the oldest is sent at once

%% earlier: when the join before it was made, in seconds. is_queued: whether an event about the join waits in the
%% outbox.
-type change() :: #{key := term(), remote := binary(), type := joined | left, event := ping_muc_outbox:event(),
                    earlier := number() | undefined, is_queued := boolean()}.
-type fold() :: #{sent := non_neg_integer(), at := number(), remote := binary(),
                  waits := {change(), number()} | none}.
%% A change to send now, or one that waits: call due/4 with these after so many seconds.
-type action() :: {send, change()} | {wait, term(), number(), number()}.
-opaque folds() :: #{folds := ping_muc_queue:queue(term(), fold()),
                     allowances := #{binary() => {number(), number()}},
                     waiting := #{binary() => pos_integer()}}.

-spec new() -> folds().
new() ->
    #{folds => ping_muc_queue:new(), allowances => #{}, waiting => #{}}.

%% Delay: the setting, in seconds. Returns what to do about a change.
-spec report(change(), pos_integer(), number(), folds()) -> {[action()], folds()}.
report(#{key := Key} = Change, Delay, Now, Folds) ->
    Fold = current(Change, Now, Folds),
    case Change of
        #{type := joined, earlier := undefined} when map_get(sent, Fold) =:= 0 ->
            %% Most joins never change, and the first one is the user's own action. So no fold is stored for it.
            {[{send, Change}], drop(Key, Folds)};
        _ ->
            {Actions, Stored} = decide(Change, Fold, Delay, Now, Folds),
            {More, Swept} = drop_quiet(Now, Stored),
            {Actions ++ More, Swept}
    end.

current(#{key := Key, remote := Remote, earlier := Earlier}, Now, #{folds := Queue}) ->
    case ping_muc_queue:find(Key, Queue) of
        {ok, #{waits := Waits, at := At} = Fold} when Waits =/= none; Now - At < ?QUIET ->
            Fold;
        _ ->
            Sent = if Earlier =/= undefined, Now - Earlier < ?QUIET -> 1; true -> 0 end,
            #{sent => Sent, at => Now, remote => Remote, waits => none}
    end.

decide(#{key := Key, is_queued := IsQueued, remote := Remote} = Change, Fold, Delay, Now, Folds) ->
    case Fold of
        #{waits := {_, Due}} -> % its time is set already
            {[], store(Key, Fold#{waits := {Change, Due}}, Folds)};
        _ when IsQueued -> % the one before has not been sent yet, and is replaced
            {[{send, Change}], store(Key, Fold, Folds)};
        #{sent := Sent} when Sent < ?AT_ONCE ->
            {[{send, Change}], sent(Key, Fold, Now, Folds)};
        #{sent := Sent} ->
            Longest = max(1, min(?LONGEST, Delay * ?SHARE)),
            Turn = math:pow(2, min(Sent - ?AT_ONCE, 10)),
            #{waiting := Waiting} = Folds,
            {Left, _} = allowance(Remote, Now, Folds),
            InTurn = if Left > 0 -> 0; true -> min(maps:get(Remote, Waiting, 0) / ?RATE, ?LONGEST_TURN) end,
            wait(Change, Fold, max(min(Turn, Longest), InTurn), Delay, Now, Folds)
    end.

wait(#{key := Key, remote := Remote} = Change, Fold, Seconds, Delay, Now, #{waiting := Waiting} = Folds) ->
    Due = case Seconds > ?TOGETHER of
              true ->
                  Latest = Now + max(Seconds, Delay - ?MARGIN),
                  min(math:ceil((Now + Seconds) / ?TOGETHER) * ?TOGETHER, Latest);
              false ->
                  Now + Seconds
          end,
    Counted = Folds#{waiting := maps:update_with(Remote, fun(N) -> N + 1 end, 1, Waiting)},
    {[{wait, Key, Due, Due - Now}], store(Key, Fold#{waits := {Change, Due}}, Counted)}.

%% The time of a change that waits has come. Due: as in its action
-spec due(term(), number(), number(), folds()) -> {[action()], folds()}.
due(Key, Due, Now, #{folds := Queue} = Folds) ->
    case ping_muc_queue:find(Key, Queue) of
        {ok, #{waits := {Change, Due}} = Fold} ->
            {[{send, Change}], sent(Key, Fold#{waits := none}, Now, no_longer_waits(Fold, Folds))};
        _ ->
            {[], Folds}
    end.

%% Events that never wait do not count: if a service restarts, all of its occupants leave and come back.
sent(Key, #{sent := Sent, remote := Remote} = Fold, Now, #{allowances := Allowances} = Folds) ->
    Spent = case Sent >= ?AT_ONCE of
                true ->
                    {Left, _} = allowance(Remote, Now, Folds),
                    Allowances#{Remote => {Left - 1, Now}};
                false ->
                    Allowances
            end,
    store(Key, Fold#{sent := Sent + 1, at := Now}, Folds#{allowances := Spent}).

%% Drops the change that waits.
-spec drop(term(), folds()) -> folds().
drop(Key, #{folds := Queue} = Folds) ->
    case ping_muc_queue:find(Key, Queue) of
        {ok, #{waits := Waits} = Fold} when Waits =/= none ->
            store(Key, Fold#{waits := none}, no_longer_waits(Fold, Folds));
        _ ->
            Folds
    end.

%% The changes that wait, and until when
-spec waiting(folds()) -> [{term(), number()}].
waiting(#{folds := Queue}) ->
    ping_muc_queue:fold(fun(Key, #{waits := {_, Due}}, Before) -> [{Key, Due} | Before];
                           (_, _, Before) -> Before
                        end, [], Queue).

%% To be called once an hour
-spec sweep(number(), folds()) -> {[action()], folds()}.
sweep(Now, #{allowances := Allowances} = Folds) ->
    Used = maps:filter(fun(Remote, _) -> element(1, allowance(Remote, Now, Folds)) < ?ALLOWED end, Allowances),
    drop_quiet(Now, Folds#{allowances := Used}).

drop_quiet(Now, #{folds := Queue} = Folds) ->
    case ping_muc_queue:oldest(Queue) of
        {Key, #{waits := Waits, at := At} = Fold} ->
            case ping_muc_queue:size(Queue) > ?MAX_FOLDS orelse Waits =:= none andalso Now - At >= ?QUIET of
                true ->
                    Shorter = (no_longer_waits(Fold, Folds))#{folds := ping_muc_queue:delete(Key, Queue)},
                    {Actions, Swept} = drop_quiet(Now, Shorter),
                    {[{send, Change} || {Change, _} <- [Waits]] ++ Actions, Swept};
                false ->
                    {[], Folds}
            end;
        none ->
            {[], Folds}
    end.

no_longer_waits(#{waits := none}, Folds) ->
    Folds;
no_longer_waits(#{remote := Remote}, #{waiting := Waiting} = Folds) ->
    case maps:get(Remote, Waiting, 1) of
        1 -> Folds#{waiting := maps:remove(Remote, Waiting)};
        Count -> Folds#{waiting := Waiting#{Remote => Count - 1}}
    end.

%% How many events a remote host may still cause before all must wait
allowance(Remote, Now, #{allowances := Allowances}) ->
    case Allowances of
        #{Remote := {Left, At}} -> {min(?ALLOWED, Left + max(0, Now - At) * ?RATE), Now};
        _ -> {?ALLOWED, Now}
    end.

store(Key, Fold, #{folds := Queue} = Folds) ->
    Folds#{folds := ping_muc_queue:put(Key, Fold, Queue)}.
