-module(ping_muc_commands).
-export([register/1, unregister/1]).
register(_) -> ok.
unregister(_) -> ok.
