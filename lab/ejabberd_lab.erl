%%% What the laboratory does inside a running ejabberd: lab/ejabberd.ts compiles and loads it there. The functions take
%%% and return binaries; a result with more than one part is JSON.
-module(ejabberd_lab).

-export([streams/1, open_stream/2, close_streams/2, forget_failures/1, connections/1, unacknowledged/1, answer_unacknowledged/3]).
-export([memory/0, has_room/1, change_room/2, forget_room/1, drop/1, occupants/1, count_entries/1, entries/0, count_entry/3]).

-include("xmpp.hrl").
-include("mod_muc_room.hrl").

-define(ENTRIES, ejabberd_lab_entries).
-define(TIMEOUT_MS, 5000).
-define(BRIEF_MS, 200).

%%% Streams

streams(Remote) ->
    json([#{opener => Opener, remote => Remote, isEncrypted => maps:get(stream_encrypted, State, false)}
	  || {Opener, _, State} <- found(Remote)]).

open_stream(From, To) ->
    Ping = #iq{type = get, id = <<"lab">>, from = jid:make(From), to = jid:make(To), sub_els = [#ping{}]},
    ejabberd_router:route(Ping),
    <<"ok">>.

%% Those that have failed would return all stanzas for some time.
forget_failures(Remote) ->
    [ejabberd_s2s_out:stop_async(Pid) || {Pid, State} <- states(ejabberd_s2s_out_sup, ejabberd_s2s_out, ?BRIEF_MS),
					 maps:get(remote_server, State, none) =:= Remote,
					 maps:get(on_route, State, none) =:= bounce],
    <<"ok">>.

%% A condition <<>> ends the streams cleanly.
close_streams(Remote, Condition) ->
    [close(Pid, Condition) || {_, Pid, _} <- found(Remote)],
    <<"ok">>.

close(Pid, <<>>) -> xmpp_stream_in:stop_async(Pid); % the same message for both kinds
close(Pid, <<"connection-timeout">>) -> xmpp_stream_in:send(Pid, xmpp:serr_connection_timeout());
close(Pid, <<"system-shutdown">>) -> xmpp_stream_in:send(Pid, xmpp:serr_system_shutdown()).

%% The authenticated streams from and to a domain.
found(Remote) ->
    Out = [{this, Pid, State} || {Pid, State} <- states(ejabberd_s2s_out_sup, ejabberd_s2s_out),
				 maps:get(remote_server, State, none) =:= Remote,
				 maps:get(on_route, State, none) =:= send],
    In = [{other, Pid, State} || {Pid, State} <- states(ejabberd_s2s_in_sup, ejabberd_s2s_in),
				 is_authenticated(Remote, State)],
    Out ++ In.

is_authenticated(Remote, #{auth_domains := Domains}) -> lists:member(Remote, sets:to_list(Domains));
is_authenticated(_, _) -> false.

states(Supervisor, Module) -> states(Supervisor, Module, ?TIMEOUT_MS).

states(Supervisor, Module, Timeout) ->
    Pids = [Pid || {_, Pid, _, _} <- supervisor:which_children(Supervisor), is_pid(Pid)],
    [{Pid, State} || Pid <- Pids, State <- [state(Pid, Module, Timeout)], State =/= none].

%% The state of a stream. One that is connecting does not answer.
state(Pid, Module, Timeout) ->
    Self = self(),
    Ref = make_ref(),
    Module:update_state(Pid, fun(State) -> Self ! {Ref, State}, State end),
    Monitor = monitor(process, Pid),
    receive
	{Ref, State} -> demonitor(Monitor, [flush]), State;
	{'DOWN', Monitor, _, _, _} -> none
    after Timeout -> demonitor(Monitor, [flush]), none
    end.

connections(Host) ->
    Sessions = ejabberd_sm:get_vh_session_list(Host),
    json([proplists:get_value(conn, ejabberd_sm:get_user_info(User, Server, Resource))
	  || {User, Server, Resource} <- Sessions]).

unacknowledged(JID) ->
    #jid{luser = User, lserver = Server, lresource = Resource} = jid:decode(JID),
    Pid = ejabberd_sm:get_session_pid(User, Server, Resource),
    ejabberd_hooks:add(c2s_handle_call, Server, ?MODULE, answer_unacknowledged, 10),
    integer_to_binary(ejabberd_c2s:call(Pid, ?MODULE, ?TIMEOUT_MS)).

%% In the session's process
answer_unacknowledged(#{mgmt_queue := Queue} = State, ?MODULE, From) ->
    ejabberd_c2s:reply(From, p1_queue:len(Queue)),
    {stop, State};
answer_unacknowledged(State, _, _) -> State.

%%% Memory

%% The bytes in use after all processes have collected garbage
memory() ->
    _ = [garbage_collect(Pid) || Pid <- processes()],
    integer_to_binary(erlang:memory(total)).

%%% Rooms

has_room(Room) ->
    case find(Room) of
	{ok, _} -> <<"true">>;
	error -> <<"false">>
    end.

change_room(Room, Change) ->
    {ok, Pid} = find(Room),
    {ok, Config} = mod_muc_room:get_config(Pid),
    case Change of
	members_only -> {ok, _} = mod_muc_room:set_config(Pid, Config#config{members_only = true});
	persistent -> {ok, _} = mod_muc_room:set_config(Pid, Config#config{persistent = true});
	{password, Password} ->
	    {ok, _} = mod_muc_room:set_config(Pid, Config#config{password_protected = true, password = Password});
	{ban, User} -> {ok, _} = mod_muc_room:change_item(Pid, jid:decode(User), affiliation, outcast, <<>>)
    end,
    ok = mnesia:sync_log(), % the server may be killed next
    <<"ok">>.

forget_room(Room) ->
    {ok, Pid} = find(Room),
    change_state(Pid, fun(State) -> State#state{users = #{}, nicks = #{}} end),
    Monitor = monitor(process, Pid),
    mod_muc_room:destroy(Pid, <<>>),
    receive {'DOWN', Monitor, _, _, _} -> <<"ok">>
    after ?TIMEOUT_MS -> error(timeout)
    end.

%% Sessions = [{Room, JID}]
drop(Sessions) ->
    Rooms = lists:foldl(fun({Room, JID}, All) ->
				maps:update_with(Room, fun(JIDs) -> [JID | JIDs] end, [JID], All)
			end, #{}, Sessions),
    maps:foreach(fun(Room, JIDs) ->
			 {ok, Pid} = find(Room),
			 change_state(Pid, fun(State) -> lists:foldl(fun remove/2, State, JIDs) end)
		 end, Rooms),
    <<"ok">>.

remove(JID, #state{users = Users, nicks = Nicks} = State) ->
    Key = jid:tolower(jid:decode(JID)),
    #{Key := #user{nick = Nick}} = Users,
    Others = lists:delete(Key, maps:get(Nick, Nicks)),
    Left = case Others of
	       [] -> maps:remove(Nick, Nicks);
	       _ -> Nicks#{Nick => Others}
	   end,
    State#state{users = maps:remove(Key, Users), nicks = Left}.

change_state(Pid, Change) ->
    {ok, State} = mod_muc_room:get_state(Pid),
    {ok, _} = p1_fsm:sync_send_all_state_event(Pid, {change_state, Change(State)}).

occupants(Domain) ->
    json([#{room => jid:encode({Name, Host, <<>>}), nick => Nick, jid => jid:encode(JID)}
	  || {Name, Host, Pid} <- mod_muc:get_online_rooms(Domain),
	     {ok, #state{users = Users}} <- [mod_muc_room:get_state(Pid)],
	     #user{nick = Nick, jid = JID} <- maps:values(Users)]).

count_entries(Domain) ->
    case ets:whereis(?ENTRIES) of
	undefined ->
	    Self = self(),
	    spawn(fun() ->
			  ets:new(?ENTRIES, [named_table, public]),
			  Host = ejabberd_router:host_of_route(Domain),
			  ejabberd_hooks:add(muc_filter_presence, Host, ?MODULE, count_entry, 10),
			  Self ! counting,
			  receive stop -> ok end % the table is its own
		  end),
	    receive counting -> ok end;
	_ -> ets:delete_all_objects(?ENTRIES)
    end,
    <<"ok">>.

count_entry(#presence{type = available, from = From} = Presence, #state{jid = Room}, _Nick) ->
    case xmpp:has_subtag(Presence, #muc{}) of
	true ->
	    Key = <<(jid:encode(Room))/binary, " ", (jid:encode(From))/binary>>,
	    ets:update_counter(?ENTRIES, Key, 1, {Key, 0});
	false -> ok
    end,
    Presence;
count_entry(Presence, _, _) -> Presence.

entries() ->
    json([#{key => Key, count => Count} || {Key, Count} <- ets:tab2list(?ENTRIES)]).

find(Room) ->
    #jid{luser = Name, lserver = Host} = jid:decode(Room),
    mod_muc:find_online_room(Name, Host).

json(Term) -> iolist_to_binary(jiffy:encode(Term)).
