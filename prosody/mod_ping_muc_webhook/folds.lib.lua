-- Folds: if one join changes again and again, its events wait, each longer than the one before, and the newest replaces
-- those that wait. Remote rooms can change a join, and every event costs the operator money.

local cache = require "util.cache";
local time_now = require "util.time".now;

local AT_ONCE = 4; -- events about one join that never wait: in, out, in again, another nick
-- Seconds that an event waits at most, and part of ping_muc_delay: it arrives before a check that follows.
local LONGEST, SHARE = 45, 0.75;
local MARGIN = 5; -- seconds that are left of ping_muc_delay if it waits for others
local TOGETHER = 10; -- seconds: events that wait longer than this are sent together, in one request
local QUIET = 3600; -- seconds without a change after which the count starts again
local LONGEST_TURN = 900; -- seconds that an event waits for its turn, if there are too many
-- Events that had to wait, of one remote host, at once and per second. More of them wait for their turn.
local ALLOWED, RATE = 10000, 2;
local MAX_FOLDS = 100000; -- joins that are stored; if there are more, what waits of the oldest is sent at once

return function (settings, state, sender)
	-- Key → { sent, at, remote, event, due }: how many events were sent, and when the last one was; which event waits, and
	-- until when. The join that changed last is at the head.
	state.folds = state.folds or cache.new(2^31);
	-- Remote host → { left, at }: how many events it may still cause before all must wait, and when that was the number
	state.allowances = state.allowances or {};
	local folds, allowances = state.folds, state.allowances;
	local waiting = {}; -- remote host → number of events that wait

	local function allowance_of(remote)
		local now, allowance = time_now(), allowances[remote];
		if not allowance then return { left = ALLOWED, at = now }; end
		allowance.left = math.min(ALLOWED, allowance.left + math.max(0, now - allowance.at) * RATE);
		allowance.at = now;
		return allowance;
	end

	-- Returns the event that has waited.
	local function take_event(fold)
		local event, remote = fold.event, fold.remote;
		fold.event, fold.due = nil, nil;
		local left = (waiting[remote] or 1) - 1;
		waiting[remote] = left > 0 and left or nil;
		return event;
	end

	local function send(key, fold, event)
		-- Events that never wait do not count: if a service restarts, all of its occupants leave and come back.
		if fold.sent >= AT_ONCE then
			local allowance = allowance_of(fold.remote);
			allowance.left, allowances[fold.remote] = allowance.left - 1, allowance;
		end
		fold.sent, fold.at = fold.sent + 1, time_now();
		sender.enqueue(event.kind, key, event.at, event.fields, event.join);
	end

	local function wait(key, fold, seconds)
		local due = time_now() + seconds;
		local latest = math.max(due, time_now() + settings.delay - MARGIN);
		if seconds > TOGETHER then due = math.min(math.ceil(due / TOGETHER) * TOGETHER, latest); end
		fold.due = due;
		waiting[fold.remote] = (waiting[fold.remote] or 0) + 1;
		module:add_timer(due - time_now(), function ()
			if folds:get(key) == fold and fold.due == due then send(key, fold, take_event(fold)); end
		end);
	end

	local function drop_quiet()
		while true do
			local key, fold = folds:tail();
			if not key then return; end
			if folds:count() <= MAX_FOLDS and (fold.event or time_now() - fold.at < QUIET) then return; end
			if fold.event then send(key, fold, take_event(fold)); end
			folds:set(key, nil);
		end
	end
	module:add_timer(QUIET, function ()
		drop_quiet();
		for remote in pairs(allowances) do
			if allowance_of(remote).left >= ALLOWED then allowances[remote] = nil; end
		end
		return QUIET;
	end);

	-- Reports an event about a join, now or later. `earlier`: when the join before it was made, in seconds; nil if there
	-- was none
	local function report(kind, key, remote, at, fields, join, earlier)
		local fold, now = folds:get(key), time_now();
		if fold and not fold.event and now - fold.at >= QUIET then fold = nil; end
		if not fold then fold = { sent = earlier and now - earlier < QUIET and 1 or 0; at = now; remote = remote }; end
		local event = { kind = kind, at = at, fields = fields, join = join };
		-- Most joins never change, and the first one is the user's own action. So no fold is stored for it.
		if kind == "muc.joined" and not earlier and fold.sent == 0 then
			if fold.event then take_event(fold); end
			return sender.enqueue(kind, key, at, fields, join);
		end
		local is_allowed = allowance_of(remote).left > 0;
		if fold.event then -- its time is set already
			fold.event = event;
		elseif state.queue:get(key) then -- the one before has not been sent yet, and is replaced
			sender.enqueue(kind, key, at, fields, join);
		elseif fold.sent < AT_ONCE then
			send(key, fold, event);
		else
			local longest = math.max(1, math.min(LONGEST, settings.delay * SHARE));
			fold.event = event;
			local turn = 2 ^ math.max(0, math.min(fold.sent - AT_ONCE, 10));
			local in_turn = is_allowed and 0 or math.min((waiting[remote] or 0) / RATE, LONGEST_TURN);
			wait(key, fold, math.max(math.min(turn, longest), in_turn));
		end
		folds:set(key, fold);
		drop_quiet();
	end

	-- Drops the event that waits.
	local function drop(key)
		local fold = folds:get(key);
		if fold and fold.event then take_event(fold); end
	end

	-- Whether an event about the join waits
	local function has(key)
		local fold = folds:get(key);
		return fold ~= nil and fold.event ~= nil;
	end

	-- Continues with what waited before the module was reloaded.
	local function resume()
		for key, fold in folds:items() do
			if fold.event then wait(key, fold, math.max(0, math.min(fold.due - time_now(), QUIET))); end
		end
	end

	return { report = report, drop = drop, has = has, resume = resume };
end
