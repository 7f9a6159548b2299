-- Renewals: joins are reported again, so that the receiver gets back what it has lost

local monotonic = require "util.time".monotonic;

local SLICES = 100; -- of an interval (ping_muc_refresh); in each of them, its share of the joins is reported again
local MIN_SLICE, MAX_SLICE = 1, 60; -- seconds; a change of the interval takes effect with the next slice
local AT_ONCE, PAUSE = 1000, 0.1; -- joins handed over in one step if all are reported; seconds until the next step
local MAX_WAITING = 2000; -- that wait to be sent: the next batch and one more. The rest is not formatted yet.

return function (settings, state, sender, joins)

	-- A join's place in the interval, from 0 to 1. Multiples of the golden ratio's fraction are spread evenly, however
	-- close to each other the joins were made.
	local function place_of(join)
		return join.at % 1e6 * 0.6180339887498949 % 1;
	end

	-- Renews the joins whose places have passed since the last slice: each one once in an interval. The position is stored
	-- across reloads, because otherwise frequent reloads would delay renewals for ever.
	state.renewed = state.renewed or { at = monotonic(), place = 0 };
	local function renew_slice()
		local now, from = monotonic(), state.renewed.place;
		local share = math.min((now - state.renewed.at) / settings.refresh, 1);
		for full, track in pairs(state.tracks) do
			for room, join in pairs(track.rooms) do
				if (place_of(join) - from) % 1 < share then joins.renew(full, room, join); end
			end
		end
		state.renewed = { at = now, place = (from + share) % 1 };
		return math.max(MIN_SLICE, math.min(settings.refresh / SLICES, MAX_SLICE));
	end
	local timer = module:add_timer(MIN_SLICE, renew_slice);

	-- The interval may have changed.
	local function follow_settings()
		timer:stop();
		timer = module:add_timer(MIN_SLICE, renew_slice);
	end

	-- state.unrenewed: what is left of a renewal of all joins. It continues after a reload.
	local function renew_next()
		local unrenewed = state.unrenewed;
		for _ = 1, math.min(#unrenewed, AT_ONCE, math.max(0, MAX_WAITING - state.renewals:count())) do
			local item = table.remove(unrenewed);
			local join = joins.find(item.full, item.room);
			if join then joins.renew(item.full, item.room, join); end
		end
		if unrenewed[1] then return PAUSE; end
		state.unrenewed = nil;
	end
	if state.unrenewed then module:add_timer(PAUSE, renew_next); end

	-- Reports all joins, as fast as the receiver accepts them: a new receiver may know none of them, and an operator may
	-- ask for it.
	local function announce()
		local is_under_way = state.unrenewed ~= nil;
		state.unrenewed = {};
		for full, track in pairs(state.tracks) do
			for room in pairs(track.rooms) do table.insert(state.unrenewed, { full = full, room = room }); end
		end
		if not is_under_way then module:add_timer(0, renew_next); end
	end
	sender.on_new_receiver(announce);

	return { follow_settings = follow_settings, announce = announce };
end
