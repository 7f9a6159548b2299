%%% Streams: the hooks in the processes of s2s streams: when they were established, what they carried, and how they end
%%% (rule 2 in docs/rules.md)
%%%
%%% A stream's own state has, beside what ejabberd stores there, ping_muc: host → what is known about it. A process that
%%% is killed runs no hook. So the streams are also in a table, and their processes are monitored (ping_muc_watch).
-module(ping_muc_streams).

-export([hooks/0, adopt_all/1, established/1, is_reachable/2, take_bouncing/2, drop_bouncing/1, ended/3]).
-export([s2s_in_auth_result/3, s2s_out_auth_result/2, s2s_receive_packet/1, s2s_in_handle_send/3,
         s2s_out_handle_send/3, s2s_in_closed/2, s2s_out_closed/2, adopt/3]).

-include("xmpp.hrl").

-type context() :: ping_muc_host:context().
-type state() :: xmpp_stream_in:state() | xmpp_stream_out:state().
%% In a stream's state. began: microseconds; 0: before the module was loaded. carried: whether it carried anything but
%% our own queries. asked: whether one of our queries was sent over it, or may be echoed over it.
-type stream() :: #{began := non_neg_integer(), carried := boolean(), generation := pos_integer()}.

%% Rows of the table: {{Pid, Remote}, incoming | outgoing}: established; {{bouncing, Pid}, Remote}: bounces what it is
%% given, after a connect that failed.

-spec hooks() -> [{atom(), atom(), integer()}].
hooks() ->
    [{s2s_in_auth_result, s2s_in_auth_result, 60},
     {s2s_out_auth_result, s2s_out_auth_result, 60},
     {s2s_receive_packet, s2s_receive_packet, 10},
     {s2s_out_handle_send, s2s_out_handle_send, 60},
     {s2s_in_handle_send, s2s_in_handle_send, 60}, % a stream for both directions (mod_s2s_bidi)
     {s2s_in_closed, s2s_in_closed, 60}, % before ejabberd's own (100), which ends the process
     {s2s_out_closed, s2s_out_closed, 60}].

%% How a stream begins

-spec s2s_in_auth_result(state(), boolean(), binary()) -> state().
s2s_in_auth_result(#{server_host := Host, auth_domains := Domains} = State, true, Remote) ->
    Begin = fun(Context) ->
                    case sets:is_element(Remote, Domains) of
                        true -> established(Remote, incoming, State, Context);
                        false -> State % not allowed (s2s_access)
                    end
            end,
    ping_muc_host:safely(Host, starting, Begin, State);
s2s_in_auth_result(State, _, _) ->
    State.

-spec s2s_out_auth_result(state(), true | {false, term()}) -> state().
s2s_out_auth_result(#{server := Host, remote_server := Remote} = State, true) ->
    ping_muc_host:safely(Host, starting, fun(Context) -> established(Remote, outgoing, State, Context) end, State);
s2s_out_auth_result(#{server := Host, remote_server := Remote} = State, _) ->
    ping_muc_host:safely(Host, starting, fun(Context) -> bounces(Remote, State, Context) end, State).

established(Remote, Direction, State, Context) ->
    list(Remote, Direction, Context),
    case known(State, Context) of
        undefined -> store(#{began => ping_muc_host:next_at(Context), carried => false}, State, Context);
        _ -> State % of another remote host, on the same stream
    end.

%% This process is an established stream with a remote host.
list(Remote, Direction, #{streams := Streams} = Context) ->
    true = ets:insert(Streams, {{self(), Remote}, Direction}),
    ping_muc_watch:watch(Context, self(), Remote).

bounces(Remote, State, #{streams := Streams}) ->
    true = ets:insert(Streams, {{bouncing, self()}, Remote}),
    State.

%% The streams that were there when the module was loaded. Each is asked, in its own process.
-spec adopt_all(context()) -> ok.
adopt_all(#{host := Host, generation := Generation}) ->
    Pids = [Pid || {Local, _} = Pair <- ejabberd_s2s:dirty_get_connections(), Local =:= Host,
                   Pid <- ejabberd_s2s:get_connections_pids(Pair), node(Pid) =:= node()],
    _ = [ejabberd_s2s_out:update_state(Pid, {?MODULE, adopt, [Host, Generation]}) || Pid <- lists:usort(Pids)],
    _ = [ejabberd_s2s_in:update_state(Pid, {?MODULE, adopt, [Host, Generation]})
         || {_, Pid, _, _} <- supervisor:which_children(ejabberd_s2s_in_sup), is_pid(Pid)],
    ok.

-spec adopt(state(), binary(), pos_integer()) -> state().
adopt(State, Host, Generation) ->
    Adopt = fun(#{generation := Current} = Context) when Current =:= Generation -> adopt_one(State, Context);
               (_) -> State
            end,
    ping_muc_host:safely(Host, adopting, Adopt, State).

adopt_one(State, Context) ->
    case known(State, Context) of
        undefined -> adopt_new(State, Context);
        _ -> State % known from before the module was stopped
    end.

adopt_new(#{server := Host, remote_server := Remote, on_route := Action} = State, #{host := Host} = Context) ->
    case Action of
        send ->
            list(Remote, outgoing, Context),
            store(#{began => 0, carried => true}, State, Context);
        bounce ->
            bounces(Remote, State, Context);
        _ ->
            State
    end;
adopt_new(#{server_host := Host, auth_domains := Domains} = State, #{host := Host} = Context) ->
    lists:foreach(fun(Remote) -> list(Remote, incoming, Context) end, sets:to_list(Domains)),
    store(#{began => 0, carried => true}, State, Context);
adopt_new(State, _) ->
    State.

%% What a stream carries

-spec s2s_receive_packet({stanza() | drop, state()}) -> {stanza() | drop, state()}.
s2s_receive_packet({Stanza, State} = Acc) when ?is_stanza(Stanza) ->
    #jid{lserver = To} = xmpp:get_to(Stanza),
    ping_muc_host:safely(To, receiving, fun(Context) -> receives(Stanza, State, Context) end, Acc);
s2s_receive_packet(Acc) ->
    Acc.

receives(Stanza, State, Context) ->
    #jid{lserver = Remote} = xmpp:get_from(Stanza),
    #jid{lresource = Resource} = xmpp:get_to(Stanza),
    if Resource =/= <<>> -> ping_muc_joins:note_heard(Context, Remote); true -> ok end,
    {Stream, Known} = case known(State, Context) of
                          undefined -> arrives(Remote, State, Context);
                          Some -> {Some, State}
                      end,
    #{began := Began, carried := Carried} = Stream,
    Carries = Carried orelse is_of_users(Stanza) andalso not is_echo(Stanza),
    Stored = if Carries =/= Carried -> store(Stream#{carried := Carries}, Known, Context); true -> Known end,
    {ping_muc_stanzas:mark_stream(Stanza, Began), Stored}.

%% An incoming stream that was opened to another local host carries something for this one, too.
arrives(Remote, State, Context) ->
    list(Remote, incoming, Context),
    Stream = #{began => 0, carried => false},
    {Stream, store(Stream, State, Context)}.

%% Answers do not count, because their requests did. Our own queries and stanzas between the servers themselves do not
%% count either. Our re-entries do: they make joins.
is_of_users(#iq{type = Type}) when Type =:= result; Type =:= error ->
    false;
is_of_users(Stanza) ->
    #jid{luser = User} = xmpp:get_from(Stanza),
    User =/= <<>> andalso not (is_record(Stanza, iq) andalso ping_muc_stanzas:is_ours(Stanza)).

%% A room that does not answer pings itself forwards ours to the user's client, with an id of its own.
is_echo(#iq{type = get} = Query) -> xmpp:has_subtag(Query, #ping{});
is_echo(_) -> false.

-spec s2s_out_handle_send(state(), xmpp_element(), term()) -> state().
s2s_out_handle_send(State, Stanza, _Result) ->
    sends(Stanza, State).

-spec s2s_in_handle_send(state(), xmpp_element(), term()) -> state().
s2s_in_handle_send(State, Stanza, _Result) ->
    sends(Stanza, State).

sends(Stanza, State) when ?is_stanza(Stanza) ->
    #jid{lserver = Host} = xmpp:get_from(Stanza),
    case is_of_users(Stanza) of
        true ->
            Note = fun(Context) ->
                           case known(State, Context) of
                               #{carried := false} = Stream -> store(Stream#{carried := true}, State, Context);
                               _ -> State
                           end
                   end,
            ping_muc_host:safely(Host, sending, Note, State);
        false ->
            State
    end;
sends(_, State) ->
    State.

%% How a stream ends

-spec s2s_in_closed(state(), term()) -> state().
s2s_in_closed(#{server_host := Host, auth_domains := Domains} = State, Reason) ->
    %% Not the host in the stream's header, which is only a claim
    Remotes = sets:to_list(Domains),
    Hosts = lists:usort([Host | maps:keys(maps:get(ping_muc, State, #{}))]),
    End = fun(Local) -> closed(Local, Remotes, incoming, Reason, State) end,
    lists:foreach(End, Hosts),
    State.

-spec s2s_out_closed(state(), term()) -> state().
s2s_out_closed(#{server := Host, remote_server := Remote, on_route := send} = State, Reason) ->
    closed(Host, [Remote], outgoing, Reason, State),
    State;
s2s_out_closed(#{server := Host, remote_server := Remote} = State, _Reason) ->
    ping_muc_host:safely(Host, ending, fun(Context) -> bounces(Remote, State, Context) end, State).

closed(Host, Remotes, Direction, Reason, State) ->
    Close = fun(Context) ->
                    IsQuiet = is_clean(Reason) andalso case known(State, Context) of
                                                           #{carried := Carried} -> not Carried;
                                                           undefined -> false
                                                       end,
                    lists:foreach(fun(Remote) -> close(Remote, Direction, Reason, IsQuiet, Context) end, Remotes)
            end,
    ping_muc_host:safely(Host, ending, Close, ok).

close(Remote, Direction, Reason, IsQuiet, #{streams := Streams} = Context) ->
    case ets:take(Streams, {self(), Remote}) of
        [] -> ok; % reported already
        _ -> report(Remote, Direction, xmpp_stream_out:format_error(Reason), IsQuiet, Context)
    end.

%% The process of an established stream has ended. It has run no hook if it was killed.
-spec ended(context(), pid(), binary()) -> ok.
ended(#{streams := Streams} = Context, Pid, Remote) ->
    case ets:take(Streams, {Pid, Remote}) of
        [] -> ok;
        [{_, Direction}] -> report(Remote, Direction, <<"the process of the stream has ended">>, false, Context)
    end.

report(Remote, Direction, Reason, IsQuiet, Context) ->
    case ping_muc_joins:note_break(Context, Remote) of
        %% Otherwise the pings of one check would cause the next one, for ever.
        true when not IsQuiet ->
            At = ping_muc_host:next_at(Context),
            ping_muc_joins:note_close(Context, Remote, At),
            ping_muc_sender:closed(Context, Remote, At, Direction, Reason);
        _ ->
            ok
    end.

%% Closed without an error by either side, or because it was idle
is_clean({stream, reset}) -> true;
is_clean({stream, {_, #stream_error{reason = 'connection-timeout'}}}) -> true;
is_clean(_) -> false.

%% What others ask

%% The processes of the established streams, and the remote hosts
-spec established(context()) -> [{pid(), binary()}].
established(#{streams := Streams}) ->
    [{Pid, Remote} || [Pid, Remote] <- ets:match(Streams, {{'$1', '$2'}, '_'}), is_pid(Pid)].

%% Whether there is an established stream over which a stanza can be sent to a remote host
-spec is_reachable(context(), binary()) -> boolean().
is_reachable(#{host := Host, streams := Streams}, Remote) ->
    %% Those over which ejabberd sends: outgoing ones, and incoming ones for both directions
    Pids = ejabberd_s2s:get_connections_pids({Host, Remote}),
    [Pid || Pid <- Pids, ets:member(Streams, {Pid, Remote}), is_process_alive(Pid)] =/= [].

%% The processes that bounce what is sent to a remote host. They are forgotten here.
-spec take_bouncing(context(), binary()) -> [pid()].
take_bouncing(#{streams := Streams}, Remote) ->
    Pids = [Pid || [Pid] <- ets:match(Streams, {{bouncing, '$1'}, Remote})],
    _ = [ets:delete(Streams, {bouncing, Pid}) || Pid <- Pids],
    Pids.

%% Forgets those that no longer exist.
-spec drop_bouncing(context()) -> ok.
drop_bouncing(#{streams := Streams}) ->
    _ = [ets:delete(Streams, {bouncing, Pid})
         || [Pid] <- ets:match(Streams, {{bouncing, '$1'}, '_'}), not is_process_alive(Pid)],
    ok.

%% The stream's own state

-spec known(state(), context()) -> stream() | undefined.
known(State, #{host := Host, generation := Generation}) ->
    case State of
        #{ping_muc := #{Host := #{generation := Generation} = Stream}} -> Stream;
        _ -> undefined
    end.

store(Stream, State, #{host := Host, generation := Generation}) ->
    Streams = maps:get(ping_muc, State, #{}),
    State#{ping_muc => Streams#{Host => Stream#{generation => Generation}}}.
