-- Doubts: reasons to doubt that this host's sessions are still in a room, although no stream closed
-- (rule 11 in docs/rules.md)
--
-- Either the room says to one of them that it is not in it, or the room has been silent for long. In both cases the
-- module requests a check of that room, or of the whole host if many of its rooms say so. It does not decide whether
-- the users are out.

local cache = require "util.cache";
local jid = require "util.jid";
local time = require "util.time";

local monotonic, time_now = time.monotonic, time.now;
local match = string.match;

-- How many checks errors of rooms can cause at once, and per second in the long run: checks of single rooms for one
-- remote host and for one user, checks of a whole host, and checks in all. Each costs the operator money. A check whose
-- pings are not answered runs for minutes, and delays others. If all are answered, most of its cost is given back.
local BOUNDS = {
	host = { at_once = 10, rate = 6 / 3600 };
	whole = { at_once = 1, rate = 2 / 3600 };
	user = { at_once = 60, rate = 6 / 3600 };
	all = { at_once = 120, rate = 12 / 3600 };
};
local GIVEN_BACK = 3 / 4;
local SWEEP = 600; -- seconds after which allowances that are full again are dropped
local LEAST_WINDOW = 5; -- seconds from a check that a room's error caused until the next one may
local PASSES = 4; -- in an interval, over all rooms. So a silent room is found late by a fourth of it at most.
local SLICES, MIN_SLICE, MAX_SLICE = 100, 1, 60; -- of a pass; seconds of one
local MAX_ROOMS = 1000; -- examined in one slice
local MAX_UNHEARD = 4; -- checks of one host's silent rooms before anything has arrived from it

-- How a room answers a message or presence of a session that is not in it: not-acceptable (XEP-0045 §7.4; Prosody
-- answers a presence with item-not-found), or item-not-found if the room itself no longer exists
local NOT_IN = { ["not-acceptable"] = true, ["item-not-found"] = true };

return function (settings, state, checks, rosters, closes)
	-- Room → { requested_at, on_account_of }: when a check of it was last requested, and whose allowance it used. Only
	-- of rooms with joins; the room that was examined last is at the head.
	state.doubts = state.doubts or cache.new(2^31);
	local doubts = state.doubts;
	-- Kind and name → { left, at }: how many checks errors of rooms may still cause, and when that was the number.
	-- Without an entry, the allowance is full. So there are at most as many entries as checks.
	state.check_allowances = state.check_allowances or {};
	local allowances = state.check_allowances;
	-- Remote host → { at, count }: when checks of silent rooms there were requested, and how many since anything arrived
	-- from the host
	state.unheard = state.unheard or {};
	local unheard = state.unheard;
	local waiting = {}; -- room → true while a timer is set to examine it later

	-- Called when a room may have got its first join, or lost its last one.
	local function follow(room)
		local has_joins = next(rosters.joins_in(room)) ~= nil;
		if not has_joins then
			doubts:set(room, nil);
		elseif not doubts:get(room) then
			doubts:set(room, {});
		end
	end
	for _, track in pairs(state.tracks) do
		for room in pairs(track.rooms) do follow(room); end
	end

	local function request_check_of_room(room, cause)
		doubts:get(room).requested_at = monotonic();
		checks.request(jid.host(room), room, cause);
	end

	-- What the room says

	local function allowance_of(kind, name)
		local now, bound, key = monotonic(), BOUNDS[kind], kind.." "..name;
		local allowance = allowances[key] or { left = bound.at_once, at = now };
		allowance.left, allowance.at = math.min(bound.at_once, allowance.left + (now - allowance.at) * bound.rate), now;
		return allowance, key;
	end

	-- Kind → name of each allowance that a check of a room on account of a session uses
	local function accounts_of_room(room, full)
		return { host = jid.host(room), user = jid.bare(full), all = "" };
	end

	-- Seconds until a check that uses these allowances is allowed
	local function seconds_until_allowed(accounts)
		local seconds = 0;
		for kind, name in pairs(accounts) do
			seconds = math.max(seconds, (1 - allowance_of(kind, name).left) / BOUNDS[kind].rate);
		end
		return seconds;
	end

	local function spend(accounts, count)
		for kind, name in pairs(accounts) do
			local allowance, key = allowance_of(kind, name);
			allowance.left, allowances[key] = allowance.left - count, allowance;
		end
	end

	local function request_for(full, room)
		spend(accounts_of_room(room, full), 1);
		doubts:get(room).on_account_of = full;
		request_check_of_room(room, "room-error");
	end

	-- So many rooms of a host say so that single checks are used up: its chat service has probably restarted. One check of
	-- all its rooms also finds the users who do not write.
	local function request_for_host(remote)
		if allowance_of("host", remote).left >= 1 then return; end
		local accounts = { whole = remote, all = "" };
		if seconds_until_allowed(accounts) > 0 then return; end
		spend(accounts, 1);
		checks.request(remote, nil, "room-error");
	end

	-- A request to the stanza API about these rooms is finished. `is_answered`: whether they have answered all pings
	local function pings_finished(rooms, is_answered)
		for room in pairs(rooms) do
			local doubt = doubts:get(room);
			local full = doubt and doubt.on_account_of;
			if full and is_answered then spend(accounts_of_room(room, full), -GIVEN_BACK); end
			if full then doubt.on_account_of = nil; end
		end
	end

	module:add_timer(SWEEP, function ()
		for key in pairs(allowances) do
			local kind, name = match(key, "^(%l+) (.*)$");
			if allowance_of(kind, name).left >= BOUNDS[kind].at_once then allowances[key] = nil; end
		end
		for remote in pairs(unheard) do
			if not state.remotes[remote] then unheard[remote] = nil; end
		end
		return SWEEP;
	end);

	local function window() return math.max(LEAST_WINDOW, settings.delay); end

	-- Whether a room has denied a join after the last ping of it
	local function is_in_doubt(join)
		return join.denied and join.denied > math.max(join.at / 1e6, join.pinged or 0);
	end

	-- After that time, a check is requested if a join is still in doubt, and as soon as the allowance permits it.
	local function examine_later(room, seconds)
		if waiting[room] then return; end
		waiting[room] = true;
		module:add_timer(seconds, function ()
			waiting[room] = nil;
			local doubt, later = doubts:get(room), nil;
			for full, join in pairs(doubt and rosters.joins_in(room) or {}) do
				if is_in_doubt(join) then
					local left = seconds_until_allowed(accounts_of_room(room, full));
					if left <= 0 then return request_for(full, room); end
					later = math.min(later or left, left);
				end
			end
			if later then examine_later(room, math.max(1, later)); end
		end);
	end

	local function seconds_left(doubt)
		return doubt.requested_at and doubt.requested_at + window() - monotonic() or 0;
	end

	-- A room says to a session that it is not in it. A check is requested at once, unless there was one within the
	-- window, or there were too many. A check pings all joins that were made before it, and so settles all earlier
	-- doubts. A later doubt, or one that must wait, is examined later.
	local function denied(room, full, join)
		local doubt = doubts:get(room);
		if not doubt or join.attempt then return; end -- the session is entering again by itself
		local left = math.max(seconds_left(doubt), seconds_until_allowed(accounts_of_room(room, full)));
		if left <= 0 then return request_for(full, room); end
		join.denied = time_now();
		examine_later(room, left);
		request_for_host(jid.host(room));
	end

	-- Joins that have been in doubt since before the module was reloaded
	for _, track in pairs(state.tracks) do
		for room, join in pairs(track.rooms) do
			if is_in_doubt(join) then examine_later(room, math.max(0, seconds_left(doubts:get(room)))); end
		end
	end

	-- The join to which a stanza from a room belongs, the room, and the nick ("" if it is from the room itself); nothing
	-- for what this server has bounced
	local function join_of(event)
		local origin, attr = event.origin, event.stanza.attr;
		local track = state.tracks[attr.to];
		if not track or origin.dummy or (origin.type ~= "s2sin" and origin.type ~= "s2sout") then return; end
		local room, nick = match(attr.from, "^([^/]*)/?(.*)$");
		return track.rooms[room], room, nick;
	end

	-- After the hooks of tracking: what is held back from the client does not count here.
	module:hook("message/full", function (event)
		local join, room, nick = join_of(event);
		if not join then return; end
		local message_type = event.stanza.attr.type;
		if message_type ~= "error" then
			-- A room can also invite users who are not in it.
			if message_type == "groupchat" or nick ~= "" then join.heard = monotonic(); end
		elseif nick == "" then -- any occupant can send an error
			local _, condition = event.stanza:get_error();
			if NOT_IN[condition] then denied(room, event.stanza.attr.to, join); end
		end
	end, 999);

	module:hook("presence/full", function (event)
		local join, room, nick = join_of(event);
		if not join then return; end
		local presence_type = event.stanza.attr.type;
		if presence_type == nil or presence_type == "unavailable" then
			if nick ~= "" then join.heard = monotonic(); end
		elseif presence_type == "error" then
			local _, condition = event.stanza:get_error();
			-- A new nick that is not acceptable is no reason to doubt.
			local is_own = nick == "" or nick == join.nick;
			if condition == "item-not-found" or (NOT_IN[condition] and is_own) then
				denied(room, event.stanza.attr.to, join);
			end
		end
	end, 999);

	-- Before queries.lib takes the answers to our own pings. An occupant's address answers only occupants.
	module:hook("iq/full", function (event)
		local join, _, nick = join_of(event);
		if join and nick ~= "" and event.stanza.attr.type ~= "error" then join.heard = monotonic(); end
	end, 1001);

	-- What the room does not say

	local function is_silent(room, doubt, now)
		if doubt.requested_at and now - doubt.requested_at < settings.silence then return false; end
		local found = false;
		for _, join in pairs(rosters.joins_in(room)) do
			join.heard = join.heard or now; -- found when the module was loaded
			found = found or now - join.heard >= settings.silence;
		end
		return found;
	end

	-- A host that hangs is silent in all of its rooms. Until something arrives from it, checks of a few rooms are enough.
	local function may_check_silence(remote)
		local last, now = unheard[remote], time_now();
		if not last or now - last.at >= settings.silence or (closes.heard(remote) or 0) > last.at then
			last = { count = 0 };
			unheard[remote] = last;
		elseif last.count >= MAX_UNHEARD then
			return false;
		end
		last.at, last.count = now, last.count + 1;
		return true;
	end

	-- Examines the rooms one after the other, and few at a time, so that rooms that become silent together are not checked
	-- together.
	local examined_at = monotonic();
	local function examine_slice()
		local now, pass = monotonic(), settings.silence / PASSES;
		local share = math.min((now - examined_at) / pass, 1);
		examined_at = now;
		for _ = 1, math.min(math.ceil(doubts:count() * share), MAX_ROOMS) do
			local room, doubt = doubts:tail();
			doubts:set(room, doubt);
			if is_silent(room, doubt, now) and may_check_silence(jid.host(room)) then request_check_of_room(room, "silence"); end
		end
		return math.max(MIN_SLICE, math.min(pass / SLICES, MAX_SLICE));
	end

	local timer;
	local function follow_settings()
		if timer then timer:stop(); end
		examined_at = monotonic();
		timer = settings.silence > 0 and module:add_timer(MIN_SLICE, examine_slice) or nil;
	end
	follow_settings();

	return { follow = follow, follow_settings = follow_settings, pings_finished = pings_finished };
end
