-module(ping_muc_doc).
-export([doc/0]).
doc() -> #{desc => <<>>, opts => []}.
