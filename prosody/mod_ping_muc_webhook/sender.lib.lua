-- Sender: events wait here until the receiver has accepted them

local http = require "net.http";
local json = require "util.json";
local new_id = require "util.id";
local time = require "util.time";

local monotonic, time_now = time.monotonic, time.now;

local cut = module:require "text".cut;

local MAX_EVENTS, MAX_WEBHOOK = 1000, 256 * 1024; -- events and bytes in one webhook request
local MERGE = 0.1; -- seconds an event waits for others: the two streams of one link close within this
-- Seconds for a webhook request, connecting included. It follows from the other end: a receiver answers within 20, its
-- function is ended after 25, an HTTP API gives up after 30. Who gives up before sends again what is being stored.
local ANSWER_WITHIN = 35;
local GIVE_WAY_AFTER = 5; -- seconds after which a request of nothing but renewals gives way to what is fresh
-- Webhook requests at once, and a second in the long run, retries included: so many can remote hosts make us pay for,
-- however they stagger what they do. Events merge while they wait. A full batch may pass: it holds much for its price.
local BURST, RATE = 60, 1;
local MAX_BACKOFF, MAX_RETRY_AFTER = 60, 3600; -- seconds between two tries: our own choice, the receiver's wish
local MAX_REJECTED_LOGGED = 10; -- of one webhook answer
local TICK = 0.001; -- seconds until the next request, where one does not hold all

local count_events = module:measure("events_sent", "counter");
local measure_queue = module:measure("queue_length", "amount");
local measure_age = module:measure("oldest_event_age", "amount", { unit = "seconds" });
local measure_answer = module:measure("last_answer", "amount"); -- HTTP status, 0 when there was no answer
local count_webhooks = module:metric("counter", "webhooks", "", "Webhooks by HTTP status, 0: unanswered", { "status" });

return function (settings, state, signature)
	local flight; -- { timer, request, since, gives_way }: the one webhook request under way, which carries state.batch
	local flush_timer;
	local failures, complaint = 0, nil; -- tries in a row that failed, and what was said about the last one
	local batch_limit = MAX_EVENTS;
	local put_back_last; -- the batch that was put back last: where the next one says the same, it is the same request
	local tokens, counted_at = BURST, monotonic();
	local on_new_receiver;
	local flush;

	local envelope = { '{"host":'..json.encode(module.host)..',"events":[', "]}" };

	local function schedule_flush(after)
		if flight or flush_timer then return; end
		flush_timer = module:add_timer(after, function ()
			flush_timer = nil;
			flush();
		end);
	end

	local function waiting()
		return state.queue:count() + state.renewals:count() + #state.rest;
	end

	local function new_event(kind, key, at, fields)
		-- Formatted by hand, as JSON libraries write integers of this size as floats on older Luas
		local text = ('{"type":%q,"at":%d,%s'):format(kind, at, json.encode(fields):sub(2));
		return { key = key, kind = kind, at = at, text = text, since = time_now() };
	end

	local function new_batch(events)
		local texts, since, has_fresh = {}, math.huge, false;
		table.sort(events, function (a, b) return a.at < b.at; end);
		for i, event in ipairs(events) do
			texts[i], since, has_fresh = event.text, math.min(since, event.since), has_fresh or not event.is_renewal;
		end
		local body = envelope[1]..table.concat(texts, ",")..envelope[2];
		local id = put_back_last and put_back_last.body == body and put_back_last.id or "msg_"..new_id.medium();
		return { id = id; events = events; since = since; has_fresh = has_fresh; body = body };
	end

	-- Whether there is something newer to say of the same. Then this is dropped, and may have been heard all the same.
	local function is_superseded(event)
		local newer = state.queue:get(event.key);
		if newer and newer.join then newer.join.announced = true; end
		return newer ~= nil;
	end

	-- To the end of its queue, as old as it is.
	local function put_event_last(event)
		if is_superseded(event) then return; end
		if not event.is_renewal then
			state.queue:set(event.key, event);
			state.renewals:set(event.key, nil);
		elseif not state.renewals:get(event.key) then
			state.renewals:set(event.key, event);
		end
	end

	-- For smaller batches. What was too much stays before what came later, as a check must know the joins that were made
	-- before its close; what is refused, or is too much all alone, must not hold that up.
	local function put_back(batch, is_last)
		local rest = {};
		for _, event in ipairs(batch.events) do
			if is_last or event.is_renewal then put_event_last(event); else table.insert(rest, event); end
		end
		for _, event in ipairs(state.rest) do table.insert(rest, event); end
		state.batch, state.rest, put_back_last = nil, rest, batch;
		batch_limit = math.max(1, math.floor(#batch.events / 2));
	end

	local function next_batch()
		local retried, events, rest, size = state.batch, {}, {}, #envelope[1] + #envelope[2];
		local function take(event)
			local new_size = size + #event.text + 1;
			if #events >= batch_limit or new_size > MAX_WEBHOOK then return false; end
			if event.join then
				event.join.announced, event.join = true, nil;
			end
			size = new_size;
			table.insert(events, event);
			return true;
		end

		for _, event in ipairs(retried and retried.events or {}) do
			if event.is_renewal and state.queue:count() + #state.rest > 0 then
				put_event_last(event); -- its retry would hold up what is fresh
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
		return events[1] and new_batch(events);
	end

	-- The first of a row of equal failures is for the operator, the rest for those who look closely.
	local function complain(level, what, ...)
		module:log(complaint == what and "debug" or level, what, ...);
		if complaint ~= what then module:set_status(level, what:format(...), true); end
		complaint = what;
	end

	local function retry_later(retry_after)
		failures = failures + 1;
		local wait = math.min(2 ^ math.min(failures - 1, 10), MAX_BACKOFF) * (0.75 + 0.25 * math.random());
		if retry_after then wait = math.max(1, math.min(retry_after, MAX_RETRY_AFTER)); end
		module:log("debug", "Next try in %.1f seconds", wait);
		schedule_flush(wait);
	end

	local function delivered(batch, answer)
		count_events(#batch.events);
		state.batch, put_back_last, failures, batch_limit = nil, nil, 0, math.min(batch_limit * 2, MAX_EVENTS);
		if waiting() == 0 then -- otherwise what was refused may be in it
			if complaint ~= "" then
				module:log("info", "Webhooks are accepted");
				module:set_status("core", "Webhooks are accepted", true);
			end
			complaint = "";
		end
		local rejected = type(answer) == "table" and type(answer.rejected) == "table" and answer.rejected or {};
		for i = 1, math.min(#rejected, MAX_REJECTED_LOGGED) do
			local item = type(rejected[i]) == "table" and rejected[i] or {};
			local event = type(item.index) == "number" and batch.events[item.index + 1];
			module:log("warn", "Event rejected (%s): %s", cut(tostring(item.error), 200), event and event.text or "unknown");
		end
		if #rejected > MAX_REJECTED_LOGGED then
			module:log("warn", "%d more events rejected", #rejected - MAX_REJECTED_LOGGED);
		end
		if waiting() > 0 then schedule_flush(waiting() >= batch_limit and TICK or MERGE); end
	end

	local function answered(batch, code, body, response)
		measure_answer(code);
		count_webhooks:with_labels(tostring(code)):add(1);
		local ok, answer = pcall(json.decode, body or "");
		answer = ok and type(answer) == "table" and answer or {};
		if code >= 200 and code < 300 then return delivered(batch, answer); end

		local detail = cut(tostring(code == 0 and body or answer.detail or "no detail given"):gsub("%c", " "), 200);
		if code == 400 or code == 413 or code >= 500 then
			put_back(batch, code == 400 or #batch.events == 1);
			if code == 413 and #batch.events > 1 then return schedule_flush(TICK); end
		end
		if code == 401 then
			complain("error", "The webhook endpoint refuses our signature (%s). "
				.."Check that it knows the ping_muc_secret, and that the clocks of both sides are right", detail);
		elseif code == 410 then
			complain("error", "The webhook endpoint was removed (410). "
				.."Unload mod_%s, or set a new ping_muc_webhook_url and reload it", module.name);
		elseif code == 400 or code == 413 then
			complain("error", "The webhook endpoint does not take our events (%d: %s)", code, detail);
		elseif code == 0 then
			complain("warn", "The webhook endpoint cannot be reached (%s)", detail);
		else
			complain("warn", "The webhook endpoint answers %d (%s)", code, detail);
		end
		local retry_after = response and response.headers and response.headers["retry-after"];
		retry_later(tonumber((tostring(retry_after):match("^%d+$"))));
	end

	local function abort_flight()
		if not flight then return; end
		local request = flight.request;
		flight.timer:stop();
		flight = nil;
		-- A request that is still connecting cannot be cancelled in 0.12 nor 13.0. Should it go out yet, it does no harm.
		if type(request) == "table" and request.cancel then request:cancel("abandoned"); end
	end

	local function send(batch)
		local timestamp = ("%d"):format(os.time());
		local this = { since = monotonic() };
		flight, state.batch = this, batch;
		this.timer = module:add_timer(ANSWER_WITHIN, function ()
			if flight ~= this then return; end
			abort_flight();
			put_back(batch, #batch.events == 1);
			answered(batch, 0, "no answer within "..ANSWER_WITHIN.." seconds");
		end);
		local function done(body, code, response)
			if flight ~= this then return; end
			flight = nil;
			this.timer:stop();
			answered(batch, tonumber(code) or 0, body, response);
		end
		local ok, request = pcall(http.request, settings.webhook_url, {
			method = "POST"; body = batch.body;
			headers = {
				["Content-Type"] = "application/json";
				["webhook-id"] = batch.id; ["webhook-timestamp"] = timestamp;
				["webhook-signature"] = table.concat(signature.sign(batch.id, timestamp, batch.body), " ");
			};
		}, done);
		this.request = ok and request;
		if not ok then done(request, 0); end
	end

	-- Whether one more request may be sent now, which then counts; otherwise in how many seconds.
	local function may_send()
		local now = monotonic();
		tokens, counted_at = math.min(BURST, tokens + (now - counted_at) * RATE), now;
		local is_full = not state.batch and batch_limit == MAX_EVENTS and waiting() >= MAX_EVENTS;
		if tokens < 1 and not is_full then return false, (1 - tokens) / RATE; end
		tokens = math.max(0, tokens - 1);
		return true;
	end

	-- A receiver at a new address may know none of our joins.
	local function look_for_new_receiver()
		if state.webhook_url == settings.webhook_url then return; end
		local is_first = not state.webhook_url;
		state.webhook_url = settings.webhook_url;
		if is_first then return; end
		module:log("info", "There is a new ping_muc_webhook_url: all joins are announced to it");
		on_new_receiver();
	end

	function flush()
		if flight or not state.batch and waiting() == 0 then return; end
		local may, after = may_send();
		if not may then return schedule_flush(after); end
		look_for_new_receiver();
		local batch = next_batch();
		if batch then send(batch); end
	end

	local function enqueue(kind, key, at, fields, join)
		local event, queued = new_event(kind, key, at, fields), state.queue:get(key);
		if queued and queued.at > at then return; end -- what was held back is older than what came since
		event.join = join;
		state.queue:set(key, event);
		state.renewals:set(key, nil);
		schedule_flush(MERGE);
		local this = flight;
		if not this or state.batch.has_fresh or this.gives_way then return; end
		this.gives_way = true;
		module:add_timer(math.max(MERGE, this.since + GIVE_WAY_AFTER - monotonic()), function ()
			if flight ~= this then return; end
			local batch = state.batch;
			abort_flight();
			put_back(batch);
			flush();
		end);
	end

	-- What the receiver has been told before, once more, when there is nothing fresh to tell it.
	local function renew(key, at, fields)
		if state.queue:get(key) or state.renewals:get(key) then return; end
		local event = new_event("muc.joined", key, at, fields);
		event.is_renewal = true;
		state.renewals:set(key, event);
		schedule_flush(MERGE);
	end

	-- There is nothing to say of it any more.
	local function forget(key)
		state.queue:set(key, nil);
		state.renewals:set(key, nil);
	end

	module:hook_global("stats-update", function ()
		local oldest = state.batch and state.batch.since or math.huge;
		for _, event in ipairs(state.rest) do oldest = math.min(oldest, event.since); end
		-- What was put last is older than what waits before it.
		for _, queue in ipairs({ state.queue, state.renewals }) do
			for event in queue:values() do oldest = math.min(oldest, event.since); end
		end
		measure_queue(waiting() + (state.batch and #state.batch.events or 0));
		measure_age(oldest < math.huge and time_now() - oldest or 0);
	end);

	-- Late: by then the settings have followed.
	module:hook_global("config-reloaded", look_for_new_receiver, -1000);

	-- Goes on with what an earlier life of the module has left.
	local function resume()
		look_for_new_receiver();
		if state.batch or waiting() > 0 then schedule_flush(MERGE); end
	end

	return {
		enqueue = enqueue, renew = renew, forget = forget, resume = resume, stop = abort_flight;
		-- Calls back when events go to another address than before.
		on_new_receiver = function (callback) on_new_receiver = callback; end;
	};
end
