%%% mod_ping_muc_webhook: the XMPP server's half of ping-muc
%%%
%%% Reports, as signed webhooks, which local session is in which remote room, which s2s connection closed, and which
%%% room is in doubt. Serves a small, signed HTTP API, through which the receiver pings the rooms as the users, brings
%%% them back and notifies them. It decides nothing itself. The contract is in the folder protocol/ of the project.
%%%
%%%   sessions, tracks ──▶ joins (an index) ──▶ renewals ─┐
%%%   sessions, streams, doubts ──────────────────────────┴▶ sender, delivery ──signed──▶ the receiver
%%%   the receiver ──signed──▶ api, gate, requests ──▶ sessions, actions ──▶ the rooms, the clients
-module(mod_ping_muc_webhook).

-behaviour(gen_mod).

-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0, process/2]).

-include("logger.hrl").
-include("ejabberd_http.hrl").

%% If one of these crashed, ejabberd would log all options, with the secret.

-spec start(binary(), gen_mod:opts()) -> ok | {error, failed}.
start(Host, _Options) ->
    ping_muc_log:safely(starting, fun() -> start(Host) end, {error, failed}).

start(Host) ->
    load_upgraded(),
    case ping_muc_sup:start(Host) of
        ok ->
            %% The sender may have taken over events for another webhook_url.
            ping_muc_sender:settings_changed(ping_muc_host:context(Host)),
            hooks(add, Host),
            ping_muc_sup:complete(Host),
            ping_muc_commands:register(Host),
            warn_of_cluster(),
            ?INFO_MSG("ping_muc: Watching the users of ~ts. The stanza API is at the path that request_handlers of a "
                      "listener of ejabberd_http assigns to mod_ping_muc_webhook, plus /stanzas", [Host]);
        {error, Reason} ->
            ?ERROR_MSG("ping_muc: the processes of ~ts cannot be started (~p)", [Host, ping_muc_log:reason(Reason)]),
            {error, failed}
    end.

%% module_upgrade compiles all modules, and loads only this one. No process runs the others now.
load_upgraded() ->
    _ = [begin
             _ = code:purge(Module),
             {module, Module} = code:load_file(Module)
         end || {Module, _} <- code:all_loaded(), lists:prefix("ping_muc_", atom_to_list(Module)),
                code:module_status(Module) =:= modified],
    ok.

-spec stop(binary()) -> ok.
stop(Host) ->
    hooks(delete, Host),
    ping_muc_commands:unregister(Host),
    ping_muc_sup:stop(Host).

%% Keeps the complete state, including unsent events.
-spec reload(binary(), gen_mod:opts(), gen_mod:opts()) -> ok.
reload(Host, NewOptions, OldOptions) ->
    ping_muc_log:safely(reloading, fun() -> follow_options(Host, NewOptions, OldOptions) end, ok).

follow_options(Host, NewOptions, OldOptions) ->
    ping_muc_host:reload(Host, ping_muc_settings:read(NewOptions)),
    case ping_muc_host:context(Host) of
        undefined ->
            ok;
        Context ->
            ping_muc_sender:settings_changed(Context),
            ping_muc_rosters:settings_changed(Context),
            ping_muc_renewals:settings_changed(Context, ping_muc_settings:read(OldOptions))
    end.

-spec depends(binary(), gen_mod:opts()) -> [].
depends(_Host, _Options) ->
    [].

hooks(What, Host) ->
    _ = [ejabberd_hooks:What(Hook, Host, Module, Function, Place)
         || Module <- [ping_muc_sessions, ping_muc_streams], {Hook, Function, Place} <- Module:hooks()],
    ok.

%% A session's process does not see the streams of other nodes.
warn_of_cluster() ->
    case ejabberd_cluster:get_nodes() of
        [_] -> ok;
        _ -> ?WARNING_MSG("ping_muc: this node is part of a cluster. A stream that closes on one node causes no check "
                          "of users on the other nodes, so these are not notified", [])
    end.

-spec mod_opt_type(atom()) -> econf:validator().
mod_opt_type(Option) ->
    ping_muc_settings:opt_type(Option).

-spec mod_options(binary()) -> [{atom(), term()} | atom()].
mod_options(_Host) ->
    ping_muc_settings:options().

-spec mod_doc() -> ping_muc_doc:doc().
mod_doc() ->
    ping_muc_doc:doc().

%% For request_handlers of ejabberd_http
-spec process([binary()], #request{}) -> ping_muc_api:response().
process(Path, Request) ->
    ping_muc_api:process(Path, Request).
