-- State: what the module stores across reloads, also across one that fails, which module.save and module.restore do not

local cache = require "util.cache";
local time_now = require "util.time".now;

local MAX_REPLAYS = 10000; -- requests to the stanza API that are stored

local state = module:shared("state");
local is_new = not state.tracks;

-- The first release hands its state over with module.save, when it is upgraded by a reload. Returns whether it did.
local function take_over(saved)
	if type(saved) ~= "table" or saved.version ~= 1 then return false; end
	for _, name in ipairs { "last_at", "tracks", "remotes", "joins", "queue", "batch", "replays" } do
		state[name] = saved[name];
	end
	for _, track in pairs(state.tracks) do
		for _, join in pairs(track.rooms) do
			if join.rejoining then join.attempt, join.rejoining = time_now(), nil; end
		end
	end
	return true;
end
-- Before the settings are read: a wrong setting ends the load here, and the next load continues with this.
local is_handed_over = is_new and take_over(module.saved_state);

-- Called when the settings are known to be right. Other parts add what is their own.
local function prepare()
	if is_new then
		state.last_at = state.last_at or 0;
		-- Full JID → { rooms = { room → join }, count, asks }. A join has, beside fields of other parts:
		--   at         its moment, which names it, µs
		--   nick
		--   announced  the receiver may know of it, so its end must be reported
		--   attempt    when the session began to enter again by itself, s, until the room answers
		--   pinged     when it was pinged last, s
		--   proof      when the stream of its latest proof began, µs
		--   denied     when the room last said that the session is not in it, s, while no check has settled that
		--   heard      when anything last came from the room, monotonic s
		--   entry      its re-entry (reentry.lib)
		state.tracks = state.tracks or {};
		state.remotes = state.remotes or {}; -- remote host → number of joins there
		state.joins = state.joins or 0;
		-- Key → event, the oldest at the tail. Without a limit: there is at most one event for each join, host and room.
		state.queue = state.queue or cache.new(2^31);
		-- state.batch: taken from the queue, and not accepted yet. A retry is the same request, byte for byte.
		state.webhook_url = nil; -- where events were sent last
		state.renewed = nil; -- when joins were reported again, and how far in the interval
		state.unrenewed = nil; -- joins that are still to be reported to a new receiver
		-- Id and timestamp of accepted requests → when the entry expires
		state.replays = state.replays or cache.new(MAX_REPLAYS, false);
	end
	state.renewals = state.renewals or cache.new(2^31); -- like the queue, of joins that are reported again
	state.rest = state.rest or {}; -- events from batches that were too large, in order: they are sent before the queue
end

-- Microseconds. Strictly increasing, because moments order events and name joins.
local function next_at()
	state.last_at = math.max(state.last_at + 1, math.floor(time_now() * 1e6));
	return state.last_at;
end

local function clear()
	for name in pairs(state) do state[name] = nil; end
end

return {
	state = state, is_new = is_new, is_handed_over = is_handed_over, prepare = prepare, next_at = next_at, clear = clear;
};
