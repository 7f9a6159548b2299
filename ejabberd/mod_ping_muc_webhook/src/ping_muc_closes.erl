%%% Closes: which ends of streams are reported, and when (rule 2 in docs/rules.md)
%%%
%%% After a close was reported, at most one more is reported in each half delay: a window. A close that occurs meanwhile
%%% is held back, and replaced by any newer one.
-module(ping_muc_closes).

-export([new/0, closed/4, window_over/3, windows/1, held/1]).

-export_type([closes/0, close/0]).

-type close() :: #{at := pos_integer(), direction := incoming | outgoing, reason := binary()}.
%% Remote host → the close that is held back. Only of hosts with a window
-opaque closes() :: #{binary() => close() | none}.

-spec new() -> closes().
new() ->
    #{}.

%% IsQueued: whether the close before it has not been sent yet, so that this one replaces it. With window, call
%% window_over/3 after half a delay.
-spec closed(binary(), close(), boolean(), closes()) -> {report_and_window | report | hold, closes()}.
closed(Remote, Close, IsQueued, Closes) ->
    case Closes of
        #{Remote := _} when IsQueued -> {report, Closes#{Remote := none}};
        #{Remote := _} -> {hold, Closes#{Remote := Close}};
        _ -> {report_and_window, Closes#{Remote => none}}
    end.

%% HasJoins: whether a session still has a join on that host. With a close, the next window has begun.
-spec window_over(binary(), boolean(), closes()) -> {close() | none, closes()}.
window_over(Remote, HasJoins, Closes) ->
    case Closes of
        #{Remote := Close} when Close =/= none, HasJoins -> {Close, Closes#{Remote := none}};
        _ -> {none, maps:remove(Remote, Closes)}
    end.

%% The remote hosts with a window
-spec windows(closes()) -> [binary()].
windows(Closes) ->
    maps:keys(Closes).

%% How many closes are held back
-spec held(closes()) -> non_neg_integer().
held(Closes) ->
    length([Close || Close <- maps:values(Closes), Close =/= none]).
