%%% Documentation of the options, for ejabberdctl and the web admin
-module(ping_muc_doc).

-export([doc/0]).

-export_type([doc/0]).

-type doc() :: #{desc := binary(), opts := [{atom(), #{value := string(), desc := binary()}}], example := [string()]}.

-spec doc() -> doc().
doc() ->
    #{desc =>
          <<"Reports to ping-muc's functions which users are in rooms on other servers, and which connection between "
            "servers closed. The functions ask the rooms, through an HTTP API of this module, and users who are out of "
            "a room are brought back or notified. Add the module to 'request_handlers' of a listener of "
            "'ejabberd_http', which the functions must be able to reach.">>,
      opts => [option(Option) || Option <- options()],
      example => ["listen:",
                  "  -",
                  "    port: 5281",
                  "    module: ejabberd_http",
                  "    tls: true",
                  "    request_handlers:",
                  "      /ping_muc: mod_ping_muc_webhook",
                  "",
                  "modules:",
                  "  mod_ping_muc_webhook:",
                  "    webhook_url: \"https://example.execute-api.us-east-1.amazonaws.com/webhooks\"",
                  "    secret: \"whsec_...\""]}.

option({Name, Value, Text}) ->
    {Name, #{value => Value, desc => Text}}.

options() ->
    [{webhook_url, "URL", <<"Where events are sent: https, or http to a loopback address. Required.">>},
     {secret, "Secret | [Secret, ...]",
      <<"'whsec_' and the base64 of 24 to 64 random bytes, for both directions; a list of two during a rotation, "
        "the new one first. Required.">>},
     {delay, "timeout()",
      <<"Time from the close of a connection until the rooms are asked: 1 second to 1 day. The default is 1 minute.">>},
     {timeout, "timeout()",
      <<"How long a room may take to answer: 1 second to 5 minutes. The default is 1 minute.">>},
     {patience, "timeout()",
      <<"How long a room that cannot be reached, or does not answer, is asked again before its users are notified; "
        "at 0 they are notified at once. Up to 1 day. The default is 5 minutes.">>},
     {silence, "timeout()",
      <<"If a session has received nothing from its room for this long, a check of that room is requested; 0: "
        "never. 10 seconds to 7 days. The default is 6 hours.">>},
     {heartbeat, "timeout()",
      <<"How often the module reports that the host is alive, how many events wait, and for how long; 0: never. 1 "
        "to 10 minutes. The default is 5 minutes.">>},
     {refresh, "timeout()",
      <<"How often all joins are reported again, which restores data that the receiver lost: 1 second to 3 days. "
        "The default is 1 day.">>},
     {exclude, "[Domain, ...]",
      <<"Remote hosts whose rooms are never watched, such as gateways that answer pings wrongly. The default is "
        "none.">>},
     {dry_run, "true | false",
      <<"Do everything except send notices and re-entries. The default is 'false'.">>},
     {notice_limit, "Number",
      <<"How many users a check may notify and bring back. Beyond that it is held, until an operator of the "
        "receiver releases or drops it. 0: no limit, the default. Up to 1000000.">>},
     {notice_share, "Number",
      <<"The check is held only if, of the joins decided so far, more than this share are left: 0 to 1. The "
        "default is 0.5.">>},
     {reenter, "true | false",
      <<"Whether users who are out of a room that still exists are brought back silently. The default is 'false'.">>},
     {reenter_limit, "Number",
      <<"Rooms with more occupants than this are not entered again: their users get the notice. 1 to 2000. The "
        "default is 500.">>},
     {reenter_occupants, "true | false",
      <<"Whether the module stores who is in the rooms, so that a user who is brought back learns who has left. "
        "Without it, each room is asked for its number of occupants before a session enters it again. The default "
        "is 'true'.">>}].
