-- mod_ping_muc_webhook: the XMPP server's half of ping-muc
--
-- Reports which local session is in which remote room, and which s2s connection closed, as signed webhooks; and
-- serves a small, signed HTTP API through which the receiver pings the rooms as the users and notifies those who
-- are out. It decides nothing itself. The contract is in the folder protocol/ of the project.
--
--   joins, closes ──events──▶ sender ──signed──▶ the receiver
--   the receiver ──signed──▶ api ──▶ queries ──▶ the rooms
--                             └────▶ notices ──▶ the clients

local cache = require "util.cache";

local MAX_REPLAYS = 10000; -- stanza requests that are remembered

local settings = module:require "settings".read();

module:depends("http");
module:add_feature("urn:ping-muc:0");

-- Outlives a reload, a failed one too: module.save and module.restore do not outlive the latter.
local state = module:shared("state");
local is_new = not state.tracks;
if is_new then
	state.last_at = 0;
	state.tracks = {}; -- full JID → { rooms = { room → join }, count, asks }
	state.remotes = {}; -- remote host → number of joins there
	state.joins = 0;
	state.queue = cache.new(2^31); -- key → event, the oldest at the tail; never full: folding bounds it by what is live
	state.renewals = cache.new(2^31); -- the same of joins that are announced again, which leave when nothing else waits
	state.rest = {}; -- events that were in batches which were too large, in order: they go before the queue
	state.batch = nil; -- taken from the queue, and not accepted yet: its retry is the same request, byte for byte
	state.webhook_url = nil; -- to which events were sent last
	state.renewed = nil; -- when joins were announced again for the last time, and how far in the interval
	state.unrenewed = nil; -- joins that are yet to be announced again, as the receiver is a new one
	state.replays = cache.new(MAX_REPLAYS, false); -- id and timestamp of accepted stanza requests → when to forget
end

local signature = module:require "signature"(settings);
local sender = module:require "sender"(settings, state, signature);
local queries = module:require "queries";
local joins = module:require "joins"(settings, state, sender, queries);
module:require "closes"(settings, state, sender, joins);
local api = module:require "api"(state, signature, joins, queries);

function module.load()
	if module.reloading then
		joins.drop_unwatched();
	else
		if not is_new then joins.drop_ended(); end -- a reload failed, and users went on without us
		joins.adopt();
	end
	sender.resume();
end

function module.unload()
	sender.stop();
	api.stop();
	if not module.reloading then
		for name in pairs(state) do state[name] = nil; end
	end
end
