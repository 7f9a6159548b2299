%%% Outbox: the events that wait for the receiver, and the batches in which they are sent
%%%
%%% In this order: the batch, which was taken and is not accepted yet; the rest, from batches that were too large; the
%%% queue; and the renewals, if nothing else waits. An event is replaced by a newer one with the same key. Times are
%%% seconds.
-module(ping_muc_outbox).

-export([new/1, event/5, renewal/4, add/2, leave/2, renew/2, drop/2, is_queued/2, renewals/1]).
-export([next_batch/1, heartbeat/3, accept/1, put_back/3, waiting/1, has_batch/1, backlog/2, fills_batch/1, is_full/1]).

-export_type([outbox/0, event/0, batch/0]).

-define(MAX_EVENTS, 1000).         % in one webhook request
-define(MAX_WEBHOOK, (256 * 1024)). % bytes of one webhook request
-define(MAX_FAILURES, 5). % of an event that was sent alone, after which others go first: half a minute of retries
-define(ENVELOPE, 2200). % bytes for the host, a heartbeat and what is around the events

%% known: the receiver may know an earlier state of the join, so its end must be reported. failures: of the event when
%% it was sent alone.
-type event() :: #{key := term(), at := pos_integer(), text := binary(), since := number(), known := boolean(),
                   renewal := boolean(), failures := non_neg_integer()}.
-type batch() :: #{id := binary(), events := [event()], body := binary(), since := number(), is_fresh := boolean(),
                   is_heartbeat := boolean()}.
%% Without a limit: there is at most one event for each join, host and room.
-type events() :: ping_muc_queue:queue(term(), event()).
-opaque outbox() :: #{host := binary(), queue := events(), renewals := events(), rest := [event()],
                      batch := batch() | none, put_back := batch() | none, limit := pos_integer()}.

-spec new(binary()) -> outbox().
new(Host) ->
    #{host => Host, queue => ping_muc_queue:new(), renewals => ping_muc_queue:new(), rest => [], batch => none,
      put_back => none, limit => ?MAX_EVENTS}.

%% Fields: what the event has beside its type and its moment
-spec event(binary(), term(), pos_integer(), map(), number()) -> event().
event(Type, Key, At, Fields, Now) ->
    #{key => Key, at => At, text => ping_muc_json:encode(Fields#{type => Type, at => At}), since => Now,
      known => true, renewal => false, failures => 0}.

%% Tells of a join what the receiver knows already.
-spec renewal(term(), pos_integer(), map(), number()) -> event().
renewal(Key, At, Fields, Now) ->
    (event(<<"muc.joined">>, Key, At, Fields, Now))#{renewal := true}.

%% Returns whether the event was added.
-spec add(event(), outbox()) -> {boolean(), outbox()}.
add(#{key := Key, at := At} = Event, #{queue := Queue, renewals := Renewals} = Outbox) ->
    case ping_muc_queue:find(Key, Queue) of
        {ok, #{at := Newer}} when Newer > At ->
            {false, Outbox}; % the event was held back, and is older than this one
        Queued ->
            Known = case Queued of {ok, #{known := Before}} -> Before; error -> maps:get(known, Event) end,
            {true, Outbox#{queue := ping_muc_queue:put(Key, Event#{known := Known}, Queue),
                           renewals := ping_muc_queue:delete(Key, Renewals)}}
    end.

%% Adds the end of a join, unless the receiver has never known it.
-spec leave(event(), outbox()) -> {boolean(), outbox()}.
leave(#{key := Key} = Event, #{queue := Queue} = Outbox) ->
    case ping_muc_queue:find(Key, Queue) of
        {ok, #{known := false}} -> {false, drop(Key, Outbox)};
        _ -> add(Event, Outbox)
    end.

%% Adds a renewal, for when nothing else waits. Returns whether it was added.
-spec renew(event(), outbox()) -> {boolean(), outbox()}.
renew(#{key := Key} = Event, #{queue := Queue, renewals := Renewals} = Outbox) ->
    case {ping_muc_queue:find(Key, Queue), ping_muc_queue:find(Key, Renewals)} of
        {error, error} -> {true, Outbox#{renewals := ping_muc_queue:put(Key, Event, Renewals)}};
        _ -> {false, Outbox}
    end.

-spec drop(term(), outbox()) -> outbox().
drop(Key, #{queue := Queue, renewals := Renewals} = Outbox) ->
    Outbox#{queue := ping_muc_queue:delete(Key, Queue), renewals := ping_muc_queue:delete(Key, Renewals)}.

-spec is_queued(term(), outbox()) -> boolean().
is_queued(Key, #{queue := Queue}) ->
    ping_muc_queue:find(Key, Queue) =/= error.

-spec renewals(outbox()) -> non_neg_integer().
renewals(#{renewals := Renewals}) ->
    ping_muc_queue:size(Renewals).

%% The batch to send now. A retry is the same request, byte for byte, unless something in it has been superseded.
-spec next_batch(outbox()) -> {batch() | none, outbox()}.
next_batch(#{batch := Batch} = Outbox) when Batch =/= none ->
    #{events := Events} = Batch,
    {Kept, Moved} = lists:foldl(fun keep_in_retry/2, {[], Outbox}, Events),
    case length(Kept) =:= length(Events) of
        true -> {Batch, Moved};
        false -> new_batch(Moved#{batch := none, rest := lists:reverse(Kept) ++ maps:get(rest, Moved)})
    end;
next_batch(Outbox) ->
    new_batch(Outbox).

%% The retry of a renewal would delay newer events.
keep_in_retry(#{renewal := true} = Event, {Kept, #{queue := Queue, rest := Rest} = Outbox}) ->
    case ping_muc_queue:size(Queue) + length(Rest) > 0 of
        true -> {Kept, put_last(Event, Outbox)};
        false -> keep_if_newest(Event, Kept, Outbox)
    end;
keep_in_retry(Event, {Kept, Outbox}) ->
    keep_if_newest(Event, Kept, Outbox).

keep_if_newest(Event, Kept, Outbox) ->
    case superseded(Event, Outbox) of
        {true, Marked} -> {Kept, Marked};
        false -> {[Event | Kept], Outbox}
    end.

new_batch(Outbox) ->
    {Newest, Marked} = lists:foldl(fun(Event, {Kept, Box}) -> keep_if_newest(Event, Kept, Box) end,
                                   {[], Outbox}, maps:get(rest, Outbox)),
    {FromRest, Rest, Size, Count} = take_list(lists:reverse(Newest), [], ?ENVELOPE, 0, Marked),
    Box = Marked#{rest := Rest},
    {Taken, Final} = case Rest of
                         [] -> take_queues(FromRest, Size, Count, Box);
                         _ -> {FromRest, Box}
                     end,
    case Taken of
        [] ->
            {none, Final};
        _ ->
            Batch = make_batch(Taken, Final),
            {Batch, Final#{batch := Batch}}
    end.

take_list([Event | More] = Events, Taken, Size, Count, Outbox) ->
    case fits(Event, Size, Count, Outbox) of
        {true, NewSize} -> take_list(More, [Event | Taken], NewSize, Count + 1, Outbox);
        false -> {Taken, Events, Size, Count}
    end;
take_list([], Taken, Size, Count, _Outbox) ->
    {Taken, [], Size, Count}.

take_queues(Taken, Size, Count, #{queue := Queue, renewals := Renewals} = Outbox) ->
    {Taken1, Size1, Count1, Queue1} = take_queue(Queue, Taken, Size, Count, Outbox),
    {Taken2, _, _, Renewals1} = take_queue(Renewals, Taken1, Size1, Count1, Outbox),
    {Taken2, Outbox#{queue := Queue1, renewals := Renewals1}}.

take_queue(Queue, Taken, Size, Count, Outbox) ->
    case ping_muc_queue:take_oldest(Queue) of
        none ->
            {Taken, Size, Count, Queue};
        {_, Event, Shorter} ->
            case fits(Event, Size, Count, Outbox) of
                {true, NewSize} -> take_queue(Shorter, [Event | Taken], NewSize, Count + 1, Outbox);
                false -> {Taken, Size, Count, Queue}
            end
    end.

fits(#{text := Text}, Size, Count, #{limit := Limit}) ->
    NewSize = Size + byte_size(Text) + 1,
    Count < Limit andalso NewSize =< ?MAX_WEBHOOK andalso {true, NewSize}.

%% Oldest first. The retry of a batch that was put back keeps its id, if it is the same request.
make_batch(Taken, #{host := Host, put_back := PutBack}) ->
    Events = lists:sort(fun(#{at := A}, #{at := B}) -> A =< B end, Taken),
    Body = body(Host, [], Events),
    Id = case PutBack of #{body := Body, id := Same} -> Same; _ -> new_id() end,
    #{id => Id, events => Events, body => Body, since => lists:min([Since || #{since := Since} <- Events]),
      is_fresh => lists:any(fun(#{renewal := Renewal}) -> not Renewal end, Events), is_heartbeat => false}.

body(Host, Fields, Events) ->
    Texts = lists:join($,, [Text || #{text := Text} <- Events]),
    iolist_to_binary(["{\"host\":\"", Host, "\",", Fields, "\"events\":[", Texts, "]}"]).

new_id() ->
    <<"msg_", (binary:encode_hex(crypto:strong_rand_bytes(12)))/binary>>.

%% The same batch as a heartbeat: a new request, because it also states how long the queue is now. Without a batch, a
%% request without events
-spec heartbeat(batch() | none, number(), outbox()) -> batch().
heartbeat(Batch, Now, #{host := Host} = Outbox) ->
    {Length, Age} = backlog(Now, Outbox),
    Events = case Batch of none -> []; #{events := Some} -> Some end,
    Queue = io_lib:format("\"queue\":{\"length\":~b,\"oldest\":~b},", [Length, trunc(Age)]),
    #{id => new_id(), events => Events, body => body(Host, Queue, Events), since => Now,
      is_fresh => Batch =/= none andalso maps:get(is_fresh, Batch), is_heartbeat => true}.

%% The receiver has accepted the batch.
-spec accept(outbox()) -> outbox().
accept(#{limit := Limit} = Outbox) ->
    Outbox#{batch := none, put_back := none, limit := min(Limit * 2, ?MAX_EVENTS)}.

%% Splits a batch: the next ones are smaller. Its events stay before later ones, because a check must know the joins
%% that were made before its close. With IsLast, or if it was a single event that has failed too often, they go to the
%% end, so that what is never accepted does not delay the others.
-spec put_back(batch(), boolean(), outbox()) -> outbox().
put_back(#{events := []}, _IsLast, Outbox) ->
    Outbox; % a heartbeat alone
put_back(#{events := [#{failures := Failures} = Event]} = Batch, IsLast, Outbox) ->
    put_back([Event#{failures := Failures + 1}], Batch, IsLast orelse Failures + 1 >= ?MAX_FAILURES, Outbox);
put_back(#{events := Events} = Batch, IsLast, Outbox) ->
    put_back(Events, Batch, IsLast, Outbox).

put_back(Events, Batch, IsLast, #{rest := Rest} = Outbox) ->
    {Last, First} = lists:partition(fun(#{renewal := Renewal}) -> IsLast orelse Renewal end, Events),
    Moved = lists:foldl(fun put_last/2, Outbox, Last),
    Moved#{batch := none, rest := First ++ Rest, put_back := Batch, limit := max(1, length(Events) div 2)}.

%% Puts an event at the end of its queue, whatever its age.
put_last(#{key := Key, renewal := IsRenewal} = Event, Outbox) ->
    case superseded(Event, Outbox) of
        {true, Marked} ->
            Marked;
        false when IsRenewal ->
            {_, Added} = renew(Event, Outbox),
            Added;
        false ->
            #{queue := Queue, renewals := Renewals} = Outbox,
            Outbox#{queue := ping_muc_queue:put(Key, Event, Queue), renewals := ping_muc_queue:delete(Key, Renewals)}
    end.

%% Whether a newer event with the same key waits. Then this one is dropped. The receiver may have stored it
%% nevertheless.
superseded(#{key := Key}, #{queue := Queue} = Outbox) ->
    case ping_muc_queue:find(Key, Queue) of
        {ok, #{known := true}} -> {true, Outbox};
        {ok, Newer} -> {true, Outbox#{queue := ping_muc_queue:put(Key, Newer#{known := true}, Queue)}};
        error -> false
    end.

-spec waiting(outbox()) -> non_neg_integer().
waiting(#{queue := Queue, renewals := Renewals, rest := Rest}) ->
    ping_muc_queue:size(Queue) + ping_muc_queue:size(Renewals) + length(Rest).

-spec has_batch(outbox()) -> boolean().
has_batch(#{batch := Batch}) ->
    Batch =/= none.

%% How many events wait to be accepted, and for how many seconds the oldest of them has waited
-spec backlog(number(), outbox()) -> {non_neg_integer(), number()}.
backlog(Now, #{batch := Batch, queue := Queue, renewals := Renewals, rest := Rest} = Outbox) ->
    Older = fun(_, #{since := Since}, Oldest) -> min(Since, Oldest) end,
    {InBatch, Sent} = case Batch of
                          none -> {0, Now};
                          #{events := Events, since := Since} -> {length(Events), Since}
                      end,
    Oldest = lists:min([Sent, ping_muc_queue:fold(Older, Now, Queue), ping_muc_queue:fold(Older, Now, Renewals)
                        | [S || #{since := S} <- Rest]]),
    {waiting(Outbox) + InBatch, max(0, Now - Oldest)}.

%% Whether more events wait than one batch holds
-spec fills_batch(outbox()) -> boolean().
fills_batch(#{limit := Limit} = Outbox) ->
    waiting(Outbox) >= Limit.

%% Whether the next batch is as large as any can be
-spec is_full(outbox()) -> boolean().
is_full(#{limit := Limit, batch := Batch} = Outbox) ->
    Batch =:= none andalso Limit =:= ?MAX_EVENTS andalso waiting(Outbox) >= ?MAX_EVENTS.
