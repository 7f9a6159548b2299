-- mod_ping_muc_webhook: the XMPP server's half of ping-muc
--
-- Reports which local session is in which remote room, which s2s connection closed, and which room is in doubt, as signed
-- webhooks; and serves a small, signed HTTP API through which the receiver pings the rooms as the users and notifies
-- those who are out. It decides nothing itself. The contract is in the folder protocol/ of the project.
--
--   joins, closes, doubts ──events──▶ sender ──signed──▶ the receiver
--   the receiver ──signed──▶ api ──▶ queries, reentry ──▶ the rooms
--                             └────▶ notices ──▶ the clients

local cache = require "util.cache";
local time_now = require "util.time".now;

local MAX_REPLAYS = 10000; -- stanza requests that are remembered

local read_settings = module:require "settings".read;

-- Outlives a reload, a failed one too: module.save and module.restore do not outlive the latter.
local state = module:shared("state");
local is_new = not state.tracks;

-- The release before hands its state over like this when it is upgraded by a reload. Returns whether there was any.
local function take_over(saved)
	if type(saved) ~= "table" or saved.version ~= 1 then return false; end
	for _, name in ipairs { "last_at", "tracks", "remotes", "joins", "queue", "batch", "replays" } do state[name] = saved[name]; end
	for _, track in pairs(state.tracks) do
		for _, join in pairs(track.rooms) do
			if join.rejoining then join.attempt, join.rejoining = time_now(), nil; end
		end
	end
	return true;
end
-- Before the settings are read: where one is wrong the load ends there, and the next one goes on with this.
local is_handed_over = is_new and take_over(module.saved_state);

-- A wrong setting stops the module from loading, but does not stop one that runs: it goes on with what it had.
local before, wrong = state.settings or {}, nil;
local set_status = module.set_status;

-- A wrong setting stays in the module's status, whatever the webhooks report.
function module:set_status(...) -- luacheck: ignore 212/self
	if not wrong then return set_status(module, ...); end
end

local function read_or_complain()
	local ok, result = pcall(read_settings);
	if not ok and not state.settings then error(result, 0); end
	if ok then
		if wrong then
			wrong = nil;
			module:set_status("core", "The settings are right again", true);
		end
		return result;
	end
	wrong = nil;
	module:log("error", "%s. The module goes on with the settings that it had", result);
	module:set_status("error", result..". Until then the module goes on with the settings that it had", true);
	wrong = result;
end

local settings = read_or_complain() or state.settings;

module:depends("http");
module:add_feature("urn:ping-muc:0");

if is_new then
	state.last_at = state.last_at or 0;
	state.tracks = state.tracks or {}; -- full JID → { rooms = { room → join }, count, asks }
	state.remotes = state.remotes or {}; -- remote host → number of joins there
	state.joins = state.joins or 0;
	state.queue = state.queue or cache.new(2^31); -- key → event, the oldest at the tail; never full: folding bounds it by what is live
	-- batch: taken from the queue, and not accepted yet; its retry is the same request, byte for byte
	state.webhook_url = nil; -- to which events were sent last
	state.renewed = nil; -- when joins were announced again for the last time, and how far in the interval
	state.unrenewed = nil; -- joins that are yet to be announced again, as the receiver is a new one
	state.replays = state.replays or cache.new(MAX_REPLAYS, false); -- id and timestamp of accepted stanza requests → when to forget
end
state.renewals = state.renewals or cache.new(2^31); -- like the queue, of joins that are announced again, for when nothing else waits
state.rest = state.rest or {}; -- events that were in batches which were too large, in order: they go before the queue
state.settings = settings; -- the last ones that were right

-- Microseconds; strictly increasing, because it orders events and names joins
local function next_at()
	state.last_at = math.max(state.last_at + 1, math.floor(time_now() * 1e6));
	return state.last_at;
end

local signature = module:require "signature"(settings);
local sender = module:require "sender"(settings, state, signature);
local queries = module:require "queries";
local closes = module:require "closes"(settings, state, sender, queries, next_at);
local folds = module:require "folds"(settings, state, sender);
local history = module:require "history"(settings, state);
local rosters = module:require "rosters"(settings, state, next_at);
local reentry = module:require "reentry"(state, queries, history, rosters);
local doubts = module:require "doubts"(settings, state, sender, rosters, closes, next_at);
local joins = module:require "joins"(settings, state, sender, queries, folds, closes, history, rosters, reentry, doubts, next_at);
local api = module:require "api"(settings, state, signature, joins, queries, closes, rosters, reentry, doubts);

-- What follows from other settings than before
local function apply()
	joins.drop_unwatched();
	joins.follow_refresh();
	history.follow_settings();
	rosters.follow_settings();
	doubts.follow_settings();
	local function is_new_here(remote) return before.excluded[remote]; end
	for remote in pairs(before.excluded or {}) do
		if not settings.excluded[remote] then
			joins.adopt(is_new_here);
			break;
		end
	end
end

module:hook_global("config-reloaded", function ()
	local fresh = read_or_complain();
	if not fresh then return; end
	before = {};
	for name, value in pairs(fresh) do before[name], settings[name] = settings[name], value; end
	apply();
end);

local function resume()
	closes.resume();
	sender.resume();
end

function module.load()
	folds.resume();
	if not module.reloading then
		if not is_new then joins.drop_ended(); end -- a reload failed, and users went on without us
		joins.adopt();
	elseif is_new then
		if is_handed_over then joins.drop_unwatched(); else joins.adopt(); end
	end
	resume();
	if module.reloading then apply(); end
end

-- mod_ping_muc does the same job inside the server.
local function warn_of_double(name)
	if name ~= "ping_muc" then return; end
	module:log("warn", "mod_ping_muc is loaded on this host, too, and users would be told twice. Take one of the two out of modules_enabled");
end
if prosody.hosts[module.host].modules.ping_muc then warn_of_double("ping_muc"); end
module:hook("module-loaded", function (event) warn_of_double(event.module); end);

function module.unload()
	sender.stop();
	api.stop();
	if not module.reloading then
		for name in pairs(state) do state[name] = nil; end
	end
end
