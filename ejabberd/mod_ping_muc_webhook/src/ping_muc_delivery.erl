%%% Delivery: sends the batches of the outbox to the receiver, one request at a time, until it has accepted them
%%%
%%% These functions run in the sender's process, whose messages they take (continue/3). Times are seconds, unless named
%%% otherwise.
-module(ping_muc_delivery).

-export([new/1, resume/1, enqueue/2, leave/2, drop/2, renew/2, is_queued/2]).
-export([beat/1, follow_settings/2, continue/3, status/1]).

-export_type([delivery/0]).

-include("logger.hrl").

-define(MERGE, 100). % ms that an event waits for others: the two streams of one link close within this time
-define(GIVE_WAY_AFTER, 5000). % ms after which a request of renewals alone is aborted for the sake of other events
%% Webhook requests at once, and a second in the long run, retries included. This limits what remote hosts can make the
%% operator pay. Events merge while they wait. A full batch is exempt, because it holds much for its price.
-define(BURST, 60).
-define(RATE, 1).
-define(MAX_BACKOFF, 60).      % seconds between two attempts
-define(MAX_RETRY_AFTER, 3600). % seconds that the receiver may request
%% A request with events is a heartbeat, too, if this part of the heartbeat setting has passed. So a busy host sends no
%% request for it.
-define(HEARTBEAT_SHARE, 0.5).
-define(LEAST_LOOK, 5). % seconds until the next look whether a heartbeat is due
-define(MOST_LOOK, 60).
-define(LOST_AFTER, 60000). % ms without an answer, although a request is given up earlier (ping_muc_http)
-define(NEVER, 1.0e12).

%% flight: the request under way, and since when in monotonic ms. failures: failed attempts in a row. complaint: what
%% was logged about the last one. version: of the contract, in the last answer that stated it. tokens: requests that may
%% be sent, and when that was the number. beat_at: when the last heartbeat was accepted, monotonic.
-opaque delivery() :: #{outbox := ping_muc_outbox:outbox(),
                        flight := {pid(), ping_muc_outbox:batch(), integer()} | none,
                        timer := reference() | none, failures := non_neg_integer(),
                        complaint := {non_neg_integer(), binary()} | accepted | none, version := binary() | none,
                        tokens := {number(), number()},
                        accepted_at := number() | undefined, beat_at := number(), url := binary()}.
-type context() :: ping_muc_host:context().

-spec new(context()) -> delivery().
new(#{host := Host, settings := #{webhook_url := Url}}) ->
    ping_muc_http:start(),
    %% The first heartbeat is due at once, so that the host is known to be alive.
    #{outbox => ping_muc_outbox:new(Host), flight => none, timer => none, failures => 0, complaint => none,
      version => none, tokens => {?BURST, monotonic()}, accepted_at => undefined, beat_at => -?NEVER, url => Url}.

%% To be called once, in the sender's process: begins, or continues what another process has left.
-spec resume(delivery()) -> delivery().
resume(Delivery) ->
    _ = erlang:send_after(?LEAST_LOOK * 1000, self(), look),
    flush_later(?MERGE, Delivery#{flight := none, timer := none}).

%% What waits

-spec enqueue(ping_muc_outbox:event(), delivery()) -> delivery().
enqueue(Event, #{outbox := Outbox} = Delivery) ->
    added(ping_muc_outbox:add(Event, Outbox), Delivery).

%% The event says that a join has ended.
-spec leave(ping_muc_outbox:event(), delivery()) -> delivery().
leave(Event, #{outbox := Outbox} = Delivery) ->
    added(ping_muc_outbox:leave(Event, Outbox), Delivery).

-spec drop(term(), delivery()) -> delivery().
drop(Key, #{outbox := Outbox} = Delivery) ->
    Delivery#{outbox := ping_muc_outbox:drop(Key, Outbox)}.

%% Returns how many renewals wait.
-spec renew([ping_muc_outbox:event()], delivery()) -> {non_neg_integer(), delivery()}.
renew(Events, #{outbox := Outbox} = Delivery) ->
    Renewed = lists:foldl(fun(Event, Box) -> element(2, ping_muc_outbox:renew(Event, Box)) end, Outbox, Events),
    {ping_muc_outbox:renewals(Renewed), flush_later(?MERGE, Delivery#{outbox := Renewed})}.

-spec is_queued(term(), delivery()) -> boolean().
is_queued(Key, #{outbox := Outbox}) ->
    ping_muc_outbox:is_queued(Key, Outbox).

added({false, Outbox}, Delivery) ->
    Delivery#{outbox := Outbox};
added({true, Outbox}, Delivery) ->
    give_way(flush_later(?MERGE, Delivery#{outbox := Outbox})).

%% If the request under way holds no new events, it is aborted after some time, so that a new event goes first.
give_way(#{flight := {Id, #{is_fresh := false}, Since}} = Delivery) ->
    Left = max(?MERGE, Since + ?GIVE_WAY_AFTER - erlang:monotonic_time(millisecond)),
    _ = erlang:send_after(Left, self(), {give_way, Id}),
    Delivery;
give_way(Delivery) ->
    Delivery.

%% Sends a heartbeat now, if the host sends any.
-spec beat(delivery()) -> delivery().
beat(Delivery) ->
    flush_later(0, Delivery#{beat_at := -?NEVER}).

%% Returns whether events go to another address than before: a receiver that may know none of the joins.
-spec follow_settings(context(), delivery()) -> {boolean(), delivery()}.
follow_settings(#{settings := #{webhook_url := Url}}, #{url := Before} = Delivery) ->
    {Url =/= Before, flush_later(?MERGE, Delivery#{url := Url})}.

%% webhooks: of the newest attempt. complaint: the text about the newest failure, or empty
-spec status(delivery()) -> #{webhooks := none | accepted | failing, accepted_at := number() | undefined,
                              complaint := binary(), length := non_neg_integer(), age := number()}.
status(#{outbox := Outbox, failures := Failures, accepted_at := AcceptedAt, complaint := Complaint}) ->
    {Length, Age} = ping_muc_outbox:backlog(now_s(), Outbox),
    #{webhooks => if Failures > 0 -> failing; AcceptedAt =/= undefined -> accepted; true -> none end,
      accepted_at => AcceptedAt, complaint => case Complaint of {_, Text} -> Text; _ -> <<>> end,
      length => Length, age => Age}.

%% Takes a message of the process: time has passed, or an answer has come.
-spec continue(term(), context(), delivery()) -> delivery().
continue(flush, Context, Delivery) ->
    flush(Context, Delivery#{timer := none});
continue({http, Id, Answer}, _, #{flight := {Id, Batch, _}} = Delivery) ->
    answered(Answer, Batch, Delivery#{flight := none});
continue({give_way, Id}, Context, #{flight := {Id, Batch, _}, outbox := Outbox} = Delivery) ->
    _ = ping_muc_http:cancel(Id),
    flush(Context, Delivery#{flight := none, outbox := ping_muc_outbox:put_back(Batch, false, Outbox)});
continue(look, Context, Delivery) ->
    Left = seconds_to_heartbeat(1, Context, Delivery),
    _ = erlang:send_after(round(max(?LEAST_LOOK, min(?MOST_LOOK, Left)) * 1000), self(), look),
    Freed = free(Delivery),
    if Left =< 0 -> flush_later(0, Freed); true -> Freed end;
continue(_, _, Delivery) ->
    Delivery. % of a request that was cancelled

%% A timer that has fired, or a request that should have been answered, was lost in a crash.
free(#{timer := Timer} = Delivery) when Timer =/= none ->
    case erlang:read_timer(Timer) of
        false -> flush_later(0, Delivery#{timer := none});
        _ -> Delivery
    end;
free(#{flight := {Id, Batch, Since}, outbox := Outbox} = Delivery) ->
    case erlang:monotonic_time(millisecond) - Since > ?LOST_AFTER of
        true ->
            _ = ping_muc_http:cancel(Id),
            flush_later(0, Delivery#{flight := none, outbox := ping_muc_outbox:put_back(Batch, false, Outbox)});
        false ->
            Delivery
    end;
free(Delivery) ->
    Delivery.

%% The request

flush_later(_, #{flight := Flight, timer := Timer} = Delivery) when Flight =/= none; Timer =/= none ->
    Delivery;
flush_later(Ms, Delivery) ->
    Delivery#{timer := erlang:send_after(round(Ms), self(), flush)}.

%% Seconds until a heartbeat is due (rule 12 in docs/rules.md)
seconds_to_heartbeat(_, #{settings := #{heartbeat := 0}}, _) -> ?NEVER;
seconds_to_heartbeat(Share, #{settings := #{heartbeat := Heartbeat}}, #{beat_at := BeatAt}) ->
    BeatAt + Heartbeat * Share - monotonic().

flush(Context, #{flight := none, outbox := Outbox} = Delivery) ->
    IsDue = seconds_to_heartbeat(1, Context, Delivery) =< 0,
    IsRetry = ping_muc_outbox:has_batch(Outbox),
    case IsDue orelse IsRetry orelse ping_muc_outbox:waiting(Outbox) > 0 of
        true -> flush_if_allowed(IsDue, IsRetry, Context, Delivery);
        false -> Delivery
    end;
flush(_, Delivery) ->
    Delivery.

flush_if_allowed(IsDue, IsRetry, Context, #{outbox := Outbox, tokens := {Before, At}} = Delivery) ->
    Now = monotonic(),
    Tokens = min(?BURST, Before + (Now - At) * ?RATE),
    case Tokens >= 1 orelse ping_muc_outbox:is_full(Outbox) of
        false ->
            flush_later((1 - Tokens) / ?RATE * 1000, Delivery#{tokens := {Tokens, Now}});
        true ->
            {Batch, Taken} = ping_muc_outbox:next_batch(Outbox),
            %% A retry remains the same request for as long as possible.
            IsBeat = IsDue orelse Batch =/= none andalso not IsRetry
                andalso seconds_to_heartbeat(?HEARTBEAT_SHARE, Context, Delivery) =< 0,
            Request = case IsBeat of
                          true -> ping_muc_outbox:heartbeat(Batch, now_s(), Taken);
                          false -> Batch
                      end,
            send(Request, Context, Delivery#{tokens := {max(0, Tokens - 1), Now}, outbox := Taken})
    end.

send(none, _, Delivery) ->
    Delivery;
send(#{id := Id, body := Body} = Batch, #{settings := #{webhook_url := Url, secrets := Secrets}}, Delivery) ->
    Timestamp = integer_to_binary(os:system_time(second)),
    Headers = [{<<"content-type">>, <<"application/json">>}, {<<"webhook-id">>, Id},
               {<<"webhook-timestamp">>, Timestamp},
               {<<"webhook-signature">>, ping_muc_signature:sign(Secrets(), Id, Timestamp, Body)}],
    Delivery#{flight := {ping_muc_http:post(Url, Headers, Body), Batch, erlang:monotonic_time(millisecond)}}.

%% The answer

answered(#{status := Status, body := Body}, Batch, Delivery) when Status >= 200, Status < 300 ->
    accepted(Batch, ping_muc_receiver:object(Body), Delivery);
answered(#{status := Status, body := Body, retry_after := RetryAfter}, #{events := Events} = Batch,
         #{outbox := Outbox} = Delivery) ->
    IsSplit = length(Events) > 1,
    Next = if
               Status =:= 0; Status =:= 400; Status =:= 413; Status >= 500 ->
                   ping_muc_outbox:put_back(Batch, Status =:= 400, Outbox);
               true ->
                   Outbox
           end,
    Detail = case Status of 0 -> Body; _ -> ping_muc_receiver:detail(Body) end,
    Put = Delivery#{outbox := Next},
    if
        Status =:= 413, IsSplit -> flush_later(0, Put);
        true -> retry_later(RetryAfter, complain(Status, Detail, Put))
    end.

accepted(#{events := Events, is_heartbeat := IsBeat}, Answer,
         #{outbox := Outbox, complaint := Complaint, beat_at := BeatAt} = Delivery) ->
    ping_muc_receiver:log_rejected(Answer, Events),
    Version = ping_muc_receiver:compare_versions(Answer, maps:get(version, Delivery)),
    Next = case Events of [] -> Outbox; _ -> ping_muc_outbox:accept(Outbox) end,
    Waiting = ping_muc_outbox:waiting(Next),
    %% Otherwise what was refused before may be among the events that wait.
    IsDone = Waiting =:= 0,
    if IsDone, Complaint =/= accepted -> ?INFO_MSG("ping_muc: webhooks are accepted", []); true -> ok end,
    Done = Delivery#{outbox := Next, failures := 0, accepted_at := now_s(), version := Version,
                     beat_at := case IsBeat of true -> monotonic(); false -> BeatAt end,
                     complaint := case IsDone of true -> accepted; false -> Complaint end},
    case {IsDone, ping_muc_outbox:fills_batch(Next)} of
        {true, _} -> Done;
        {false, true} -> flush_later(0, Done);
        {false, false} -> flush_later(?MERGE, Done)
    end.

retry_later(RetryAfter, #{failures := Failures} = Delivery) ->
    %% Never less than a second: a retry has a newer timestamp, which is in seconds.
    Backoff = max(1, min(math:pow(2, min(Failures, 10)) * (0.75 + 0.5 * rand:uniform()), ?MAX_BACKOFF)),
    Wait = if RetryAfter =:= undefined -> Backoff; true -> max(1, min(RetryAfter, ?MAX_RETRY_AFTER)) end,
    ?DEBUG("ping_muc: next try in ~.1f seconds", [float(Wait)]),
    flush_later(Wait * 1000, Delivery#{failures := Failures + 1}).

%% The first of several equal failures is for the operator. The others are for debugging.
complain(Status, Detail, #{complaint := Before} = Delivery) ->
    Text = ping_muc_receiver:complaint(Status, Detail),
    case Before of
        {Status, _} -> ?DEBUG("ping_muc: ~ts", [Text]);
        _ when Status =:= 400; Status =:= 401; Status =:= 410; Status =:= 413 -> ?ERROR_MSG("ping_muc: ~ts", [Text]);
        _ -> ?WARNING_MSG("ping_muc: ~ts", [Text])
    end,
    Delivery#{complaint := {Status, Text}}.

monotonic() ->
    erlang:monotonic_time(millisecond) / 1000.

now_s() ->
    os:system_time(millisecond) / 1000.
