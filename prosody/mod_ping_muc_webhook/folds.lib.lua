-- Folds: events about one join that changes again and again wait, each longer than the one before, and the newest
-- replaces those that wait. It is remote rooms that change a join, and every event costs the operator.

local cache = require "util.cache";
local time_now = require "util.time".now;

local AT_ONCE = 4; -- events about one join that never wait: in, out, in again under another nick
local LONGEST, SHARE = 45, 0.75; -- seconds that one waits, and of a delay: it is there before a check that follows
local MARGIN = 5; -- seconds that are left of a delay, where it waits for others
local TOGETHER = 10; -- seconds: those that wait longer than this leave together, in one request
local QUIET = 3600; -- seconds after which it all begins anew
local LONGEST_TURN = 900; -- seconds for which others are waited for, where there are too many
local ALLOWED, RATE = 10000, 2; -- events that had to wait, of one remote host, and a second: beyond, each waits its turn
local MAX_FOLDS = 100000; -- joins of which it is remembered; of the oldest, what waits goes out at once

return function (settings, state, sender)
	-- Key → { sent, at, remote, event, due }: how many events went out and when the last one did, which one waits and
	-- until when. The one that changed last is at the head.
	state.folds = state.folds or cache.new(2^31);
	-- Remote host → { left, at }: how many events it may still cause before all must wait, and when that was
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

	local function wait_no_more(fold)
		local event, remote = fold.event, fold.remote;
		fold.event, fold.due = nil, nil;
		local left = (waiting[remote] or 1) - 1;
		waiting[remote] = left > 0 and left or nil;
		return event;
	end

	local function send(key, fold, event)
		-- What never waits is not counted: a service that restarts has each of its occupants leave and come back.
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
			if folds:get(key) == fold and fold.due == due then send(key, fold, wait_no_more(fold)); end
		end);
	end

	local function forget_quiet()
		while true do
			local key, fold = folds:tail();
			if not key then return; end
			if folds:count() <= MAX_FOLDS and (fold.event or time_now() - fold.at < QUIET) then return; end
			if fold.event then send(key, fold, wait_no_more(fold)); end
			folds:set(key, nil);
		end
	end
	module:add_timer(QUIET, function ()
		forget_quiet();
		for remote in pairs(allowances) do
			if allowance_of(remote).left >= ALLOWED then allowances[remote] = nil; end
		end
		return QUIET;
	end);

	-- Sends an event about a join, now or in its time. `earlier` is when there was one before, in seconds, if ever.
	local function tell(kind, key, remote, at, fields, join, earlier)
		local fold, now = folds:get(key), time_now();
		if fold and not fold.event and now - fold.at >= QUIET then fold = nil; end
		if not fold then fold = { sent = earlier and now - earlier < QUIET and 1 or 0; at = now; remote = remote }; end
		local event = { kind = kind, at = at, fields = fields, join = join };
		-- Most joins never change, and a first one is the user's doing: it is remembered by its own moment.
		if kind == "muc.joined" and not earlier and fold.sent == 0 then
			if fold.event then wait_no_more(fold); end
			return sender.enqueue(kind, key, at, fields, join);
		end
		local is_allowed = allowance_of(remote).left > 0;
		if fold.event then -- has its time already
			fold.event = event;
		elseif state.queue:get(key) then -- has not been sent yet, and is replaced
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
		forget_quiet();
	end

	-- What waits is not to be sent.
	local function drop(key)
		local fold = folds:get(key);
		if fold and fold.event then wait_no_more(fold); end
	end

	-- Whether an event about the join waits
	local function has(key)
		local fold = folds:get(key);
		return fold ~= nil and fold.event ~= nil;
	end

	-- Goes on with what an earlier life of the module has left.
	local function resume()
		for key, fold in folds:items() do
			if fold.event then wait(key, fold, math.max(0, math.min(fold.due - time_now(), QUIET))); end
		end
	end

	return { tell = tell, drop = drop, has = has, resume = resume };
end
