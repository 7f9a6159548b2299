-- Outbox: the events that wait for the receiver, and the batches in which they are sent
--
-- In this order: state.batch, which was taken and is not accepted yet; state.rest, from batches that were too large;
-- state.queue; and state.renewals, if nothing else waits. An event is replaced by a newer one with the same key.

local json = require "util.json";
local new_id = require "util.id";
local time_now = require "util.time".now;

local MAX_EVENTS, MAX_WEBHOOK = 1000, 256 * 1024; -- events and bytes in one webhook request
local MAX_FAILURES = 5; -- of an event that was sent alone, after which others go first: half a minute of retries

local measure_queue = module:measure("queue_length", "amount");
local measure_age = module:measure("oldest_event_age", "amount", { unit = "seconds" });

local envelope = { '{"host":'..json.encode(module.host)..",", '"events":[', "]}" };
local QUEUE = '"queue":{"length":%d,"oldest":%d},'; -- makes a request a heartbeat
local ENVELOPE_SIZE = #table.concat(envelope) + #QUEUE:format(2^31, 2^31);

local function new_event(kind, key, at, fields)
	-- Formatted here, because JSON libraries write integers of this size as floats on older versions of Lua
	local text = ('{"type":%q,"at":%d,%s'):format(kind, at, json.encode(fields):sub(2));
	return { key = key, kind = kind, at = at, text = text, since = time_now() };
end

return function (state)
	local batch_limit = MAX_EVENTS;
	local put_back_last; -- the last batch that was put back; a next one with the same body is a retry of the same request

	local function waiting()
		return state.queue:count() + state.renewals:count() + #state.rest;
	end

	-- Returns whether the event was added.
	local function add(kind, key, at, fields, join)
		local queued = state.queue:get(key);
		if queued and queued.at > at then return false; end -- the event was held back, and is older than this one
		local event = new_event(kind, key, at, fields);
		event.join = join;
		state.queue:set(key, event);
		state.renewals:set(key, nil);
		return true;
	end

	-- Adds what the receiver knows already, for when nothing else waits. Returns whether it was added.
	local function renew(key, at, fields)
		if state.queue:get(key) or state.renewals:get(key) then return false; end
		local event = new_event("muc.joined", key, at, fields);
		event.is_renewal = true;
		state.renewals:set(key, event);
		return true;
	end

	local function drop(key)
		state.queue:set(key, nil);
		state.renewals:set(key, nil);
	end

	-- Whether a newer event with the same key waits. Then this one is dropped. The receiver may have stored it
	-- nevertheless.
	local function is_superseded(event)
		local newer = state.queue:get(event.key);
		if newer and newer.join then newer.join.announced = true; end
		return newer ~= nil;
	end

	-- Puts an event at the end of its queue, whatever its age.
	local function put_event_last(event)
		if is_superseded(event) then return; end
		if not event.is_renewal then
			state.queue:set(event.key, event);
			state.renewals:set(event.key, nil);
		elseif not state.renewals:get(event.key) then
			state.renewals:set(event.key, event);
		end
	end

	-- Splits a batch: the next ones are smaller. Its events stay before later ones, because a check must know the joins
	-- that were made before its close. With `is_last`, or if it was a single event that has failed too often, they go to
	-- the end, so that what is never accepted does not delay the others.
	local function put_back(batch, is_last)
		local first = batch.events[1];
		if not first then return; end -- a heartbeat alone
		if not batch.events[2] then
			first.failures = (first.failures or 0) + 1;
			is_last = is_last or first.failures >= MAX_FAILURES;
		end
		local rest = {};
		for _, event in ipairs(batch.events) do
			if is_last or event.is_renewal then put_event_last(event); else table.insert(rest, event); end
		end
		for _, event in ipairs(state.rest) do table.insert(rest, event); end
		state.batch, state.rest, put_back_last = nil, rest, batch;
		batch_limit = math.max(1, math.floor(#batch.events / 2));
	end

	local function new_batch(events)
		local texts, since, has_fresh = {}, math.huge, false;
		table.sort(events, function (a, b) return a.at < b.at; end);
		for i, event in ipairs(events) do
			texts[i], since, has_fresh = event.text, math.min(since, event.since), has_fresh or not event.is_renewal;
		end
		local body = envelope[1]..envelope[2]..table.concat(texts, ",")..envelope[3];
		local id = put_back_last and put_back_last.body == body and put_back_last.id or "msg_"..new_id.medium();
		return { id = id; events = events; since = since; has_fresh = has_fresh; body = body };
	end

	-- Returns a list of events, and a function that adds an event to it, if there is room for it.
	local function new_list()
		local events, size = {}, ENVELOPE_SIZE;
		return events, function (event)
			local new_size = size + #event.text + 1;
			if #events >= batch_limit or new_size > MAX_WEBHOOK then return false; end
			if event.join then
				event.join.announced, event.join = true, nil;
			end
			size = new_size;
			table.insert(events, event);
			return true;
		end;
	end

	-- The batch to send now; nil if there is none. A retry is the same request, byte for byte, unless something in it has
	-- been superseded.
	local function next_batch()
		local retried, rest = state.batch, {};
		local events, take = new_list();
		for _, event in ipairs(retried and retried.events or {}) do
			if event.is_renewal and state.queue:count() + #state.rest > 0 then
				put_event_last(event); -- its retry would delay newer events
			elseif not is_superseded(event) and not take(event) then
				table.insert(rest, event);
			end
		end
		if retried and #events == #retried.events then return retried; end
		for _, event in ipairs(state.rest) do
			if not is_superseded(event) and (rest[1] or not take(event)) then table.insert(rest, event); end
		end
		for _, queue in ipairs(rest[1] and {} or { state.queue, state.renewals }) do
			local key, event = queue:tail();
			while key and take(event) do
				queue:set(key, nil);
				key, event = queue:tail();
			end
		end
		state.batch, state.rest = nil, rest;
		if not events[1] then return; end
		state.batch = new_batch(events);
		return state.batch;
	end

	-- The receiver has accepted the batch.
	local function accept()
		state.batch, put_back_last, batch_limit = nil, nil, math.min(batch_limit * 2, MAX_EVENTS);
	end

	-- How many events wait to be accepted, and for how many seconds the oldest of them has waited
	local function backlog()
		local oldest = state.batch and state.batch.since or math.huge;
		for _, event in ipairs(state.rest) do oldest = math.min(oldest, event.since); end
		-- All of them, because an event at the end can be older than those before it.
		for _, queue in ipairs({ state.queue, state.renewals }) do
			for event in queue:values() do oldest = math.min(oldest, event.since); end
		end
		local age = oldest < math.huge and math.max(0, time_now() - oldest) or 0;
		return waiting() + (state.batch and #state.batch.events or 0), age;
	end

	module:hook_global("stats-update", function ()
		local length, age = backlog();
		measure_queue(length);
		measure_age(age);
	end);

	-- The same batch as a heartbeat: a new request, because it also states how long the queue is now. Without a batch, a
	-- request without events
	local function heartbeat(batch)
		local length, age = backlog();
		local rest = batch and batch.body:sub(#envelope[1] + 1) or envelope[2]..envelope[3];
		return {
			id = "msg_"..new_id.medium(); events = batch and batch.events or {}; has_fresh = batch and batch.has_fresh;
			body = envelope[1]..QUEUE:format(length, math.floor(age))..rest; is_heartbeat = true;
		};
	end

	return {
		add = add, renew = renew, drop = drop, waiting = waiting;
		backlog = backlog, next_batch = next_batch, heartbeat = heartbeat, accept = accept, put_back = put_back;
		-- Whether more events wait than one batch holds
		fills_batch = function () return waiting() >= batch_limit; end;
		-- Whether the next batch is as large as any can be
		is_full = function () return not state.batch and batch_limit == MAX_EVENTS and waiting() >= MAX_EVENTS; end;
	};
end
