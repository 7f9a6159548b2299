-- Doubts: what makes it doubtful that a room still has this host's sessions in it, though no stream closed
--
-- The room's own word to one of them that it is not in, or a long silence. Either way the receiver is asked for a check of
-- that room: whether its users are out is not decided here.

local cache = require "util.cache";
local jid = require "util.jid";
local time = require "util.time";

local monotonic, time_now = time.monotonic, time.now;
local match = string.match;

-- Checks that rooms' errors can make us ask for at once, and a second in the long run: of one remote host, on account
-- of one user, and in all. Each costs the operator. One whose pings are left unanswered goes on for minutes, and holds
-- back others; where all are answered, most of it is given back.
local BOUNDS = {
	host = { at_once = 60, rate = 6 / 3600 };
	user = { at_once = 60, rate = 6 / 3600 };
	all = { at_once = 120, rate = 12 / 3600 };
};
local GIVEN_BACK = 3 / 4;
local SWEEP = 600; -- seconds after which allowances that are whole again are forgotten
local LEAST_WINDOW = 5; -- seconds from a check that a room's error caused until the next one may
local PASSES = 4; -- in an interval each room is looked at so often: who is silent is found a fourth of it late at most
local SLICES, MIN_SLICE, MAX_SLICE = 100, 1, 60; -- of a pass; seconds of one
local MAX_ROOMS = 1000; -- looked at in one slice
local MAX_UNHEARD = 4; -- rooms of one host that are asked about for their silence before anything has come from it

-- Whoever writes to a room that it is not in, or shows its presence there, is answered so: XEP-0045 §7.4 not-acceptable
-- (Prosody says item-not-found to a presence), and item-not-found where the room itself is gone.
local NOT_IN = { ["not-acceptable"] = true, ["item-not-found"] = true };

local count_requested = module:metric("counter", "checks_requested", "", "Checks asked for, by cause", { "cause" });

return function (settings, state, sender, rosters, closes, next_at)
	-- Room → { asked }: when a check of it was last asked for. Of rooms with joins; the one that was looked at last is at the head.
	state.doubts = state.doubts or cache.new(2^31);
	local doubts = state.doubts;
	-- Kind and name → { left, at }: how many checks rooms' errors may still cause there, and when that was. There can
	-- be no more of them than of checks: whoever has none has all that it is allowed.
	state.allowances = state.allowances or {};
	local allowances = state.allowances;
	-- Remote host → { at, count }: when rooms there were asked about for their silence, and how many since anything was
	-- heard from it
	state.unheard = state.unheard or {};
	local unheard = state.unheard;
	local waiting = {}; -- room → true while it is to be looked at once its window is over

	-- A room has its first join, or none any more.
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

	local function ask(room, cause)
		doubts:get(room).asked = monotonic();
		module:log("debug", "A check of %s is asked for (%s)", room, cause);
		count_requested:with_labels(cause):add(1);
		sender.enqueue("check.requested", room, next_at(), {
			remote = jid.host(room), room = room, cause = cause, delay = 0,
			timeout = settings.timeout, patience = settings.patience, dry_run = settings.dry_run, reenter = settings.reenter,
		});
	end

	-- What the room says

	local function allowance_of(kind, name)
		local now, bound, key = monotonic(), BOUNDS[kind], kind.." "..name;
		local allowance = allowances[key] or { left = bound.at_once, at = now };
		allowance.left, allowance.at = math.min(bound.at_once, allowance.left + (now - allowance.at) * bound.rate), now;
		return allowance, key;
	end

	local function accounts(room, full)
		return { host = jid.host(room), user = jid.bare(full), all = "" };
	end

	-- Seconds until a check is allowed
	local function seconds_until_allowed(room, full)
		local seconds = 0;
		for kind, name in pairs(accounts(room, full)) do
			seconds = math.max(seconds, (1 - allowance_of(kind, name).left) / BOUNDS[kind].rate);
		end
		return seconds;
	end

	local function spend(room, full, count)
		for kind, name in pairs(accounts(room, full)) do
			local allowance, key = allowance_of(kind, name);
			allowance.left, allowances[key] = allowance.left - count, allowance;
		end
	end

	local function ask_on_account_of(full, room)
		spend(room, full, 1);
		doubts:get(room).on_account_of = full;
		ask(room, "room-error");
	end

	-- All that a request has asked of these rooms has been answered by them, or not.
	local function asked(rooms, is_answered)
		for room in pairs(rooms) do
			local doubt = doubts:get(room);
			local full = doubt and doubt.on_account_of;
			if full and is_answered then spend(room, full, -GIVEN_BACK); end
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

	-- Whether a room has denied a join after it was last asked about it
	local function is_in_doubt(join)
		return join.denied and join.denied > math.max(join.at / 1e6, join.pinged or 0);
	end

	-- After that a check is asked for if somebody is in doubt still, and as soon as it is allowed.
	local function look_later(room, seconds)
		if waiting[room] then return; end
		waiting[room] = true;
		module:add_timer(seconds, function ()
			waiting[room] = nil;
			local doubt, later = doubts:get(room), nil;
			for full, join in pairs(doubt and rosters.joins_in(room) or {}) do
				if is_in_doubt(join) then
					local left = seconds_until_allowed(room, full);
					if left <= 0 then return ask_on_account_of(full, room); end
					later = math.min(later or left, left);
				end
			end
			if later then look_later(room, math.max(1, later)); end
		end);
	end

	local function seconds_left(doubt)
		return doubt.asked and doubt.asked + window() - monotonic() or 0;
	end

	-- A room says to a session that it is not in. A check is asked for at once, unless one has been within the window,
	-- or there were too many. One pings all that were in the room before it, and answers what was said until then; what
	-- comes later, or has to wait, is looked at later.
	local function denied(room, full, join)
		local doubt = doubts:get(room);
		if not doubt or join.attempt then return; end -- it is entering again as it is
		local left = math.max(seconds_left(doubt), seconds_until_allowed(room, full));
		if left <= 0 then return ask_on_account_of(full, room); end
		join.denied = time_now();
		look_later(room, left);
	end

	-- Those who are in doubt since before the module was reloaded
	for _, track in pairs(state.tracks) do
		for room, join in pairs(track.rooms) do
			if is_in_doubt(join) then look_later(room, math.max(0, seconds_left(doubts:get(room)))); end
		end
	end

	-- Whose the stanza is that comes to a session from a room, and whether it is the room's own or an occupant's. What the
	-- server bounces itself is from neither.
	local function join_of(event)
		local origin, attr = event.origin, event.stanza.attr;
		local track = state.tracks[attr.to];
		if not track or origin.dummy or (origin.type ~= "s2sin" and origin.type ~= "s2sout") then return; end
		local room, nick = match(attr.from, "^([^/]*)/?(.*)$");
		return track.rooms[room], room, nick;
	end

	-- After joins: what the client does not hear of is not from a room that it is in, or is taken care of.
	module:hook("message/full", function (event)
		local join, room, nick = join_of(event);
		if not join then return; end
		local message_type = event.stanza.attr.type;
		if message_type ~= "error" then
			-- A room invites those who are not in it, too.
			if message_type == "groupchat" or nick ~= "" then join.heard = monotonic(); end
		elseif nick == "" then -- an occupant's is what any of them can have sent
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
			-- A nick that is not acceptable is no reason to doubt.
			if condition == "item-not-found" or (NOT_IN[condition] and (nick == "" or nick == join.nick)) then denied(room, event.stanza.attr.to, join); end
		end
	end, 999);

	-- Before queries take the answers to our own pings. An occupant's address answers only those who are in the room.
	module:hook("iq/full", function (event)
		local join, _, nick = join_of(event);
		if join and nick ~= "" and event.stanza.attr.type ~= "error" then join.heard = monotonic(); end
	end, 1001);

	-- What the room does not say

	local function is_silent(room, doubt, now)
		if doubt.asked and now - doubt.asked < settings.silence then return false; end
		local found = false;
		for _, join in pairs(rosters.joins_in(room)) do
			join.heard = join.heard or now; -- found when the module was loaded
			found = found or now - join.heard >= settings.silence;
		end
		return found;
	end

	-- A host that hangs is silent in all of its rooms: until something has come from it, the others need not be asked
	-- about.
	local function may_ask_for_silence(remote)
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

	-- Looks at the rooms one after the other, and few at a time, so that those that fall silent together are not asked about
	-- together.
	local looked_at = monotonic();
	local function look_slice()
		local now, pass = monotonic(), settings.silence / PASSES;
		local share = math.min((now - looked_at) / pass, 1);
		looked_at = now;
		for _ = 1, math.min(math.ceil(doubts:count() * share), MAX_ROOMS) do
			local room, doubt = doubts:tail();
			doubts:set(room, doubt);
			if is_silent(room, doubt, now) and may_ask_for_silence(jid.host(room)) then ask(room, "silence"); end
		end
		return math.max(MIN_SLICE, math.min(pass / SLICES, MAX_SLICE));
	end

	local looking;
	local function follow_settings()
		if looking then looking:stop(); end
		looked_at = monotonic();
		looking = settings.silence > 0 and module:add_timer(MIN_SLICE, look_slice) or nil;
	end
	follow_settings();

	return { follow = follow, follow_settings = follow_settings, asked = asked };
end
