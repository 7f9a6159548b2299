-- Sender: events wait here until the receiver has accepted them

local http = require "net.http";
local json = require "util.json";
local new_id = require "util.id";
local time_now = require "util.time".now;

local cut = module:require "text".cut;

local MAX_EVENTS, MAX_WEBHOOK = 1000, 256 * 1024; -- events and bytes in one webhook request
local MERGE = 0.1; -- seconds an event waits for others: the two streams of one link close within this
local ANSWER_WITHIN = 10; -- seconds for a webhook request, connecting included
local MAX_BACKOFF, MAX_RETRY_AFTER = 60, 3600; -- seconds between two tries: our own choice, the receiver's wish
local MAX_REJECTED_LOGGED = 10; -- of one webhook answer
local TICK = 0.001; -- seconds until the next request, where one does not hold all

local count_events = module:measure("events_sent", "counter");
local measure_queue = module:measure("queue_length", "amount");
local measure_age = module:measure("oldest_event_age", "amount", { unit = "seconds" });
local measure_answer = module:measure("last_answer", "amount"); -- HTTP status, 0 when there was no answer

return function (settings, state, signature)
	local flight; -- { timer, request }: the one webhook request under way, which carries state.batch
	local flush_timer;
	local failures, complaint = 0, nil; -- tries in a row that failed, and what was said about the last one
	local batch_limit = MAX_EVENTS;
	local flush;

	local envelope = { '{"host":'..json.encode(module.host)..',"events":[', "]}" };

	local function schedule_flush(after)
		if flight or flush_timer then return; end
		flush_timer = module:add_timer(after, function ()
			flush_timer = nil;
			flush();
		end);
	end

	local function enqueue(kind, key, at, fields, join)
		-- Formatted by hand, as JSON libraries write integers of this size as floats on older Luas
		local text = ('{"type":%q,"at":%d,%s'):format(kind, at, json.encode(fields):sub(2));
		state.queue:set(key, { key = key, kind = kind, at = at, text = text, since = time_now(), join = join });
		schedule_flush(MERGE);
	end

	local function new_batch(events)
		local texts, since = {}, math.huge;
		table.sort(events, function (a, b) return a.at < b.at; end);
		for i, event in ipairs(events) do
			texts[i], since = event.text, math.min(since, event.since);
		end
		return {
			id = "msg_"..new_id.medium(); events = events; since = since;
			body = envelope[1]..table.concat(texts, ",")..envelope[2];
		};
	end

	local function next_batch()
		local retried, events, size = state.batch, {}, #envelope[1] + #envelope[2];
		for _, event in ipairs(retried and retried.events or {}) do
			if not state.queue:get(event.key) then table.insert(events, event); end
		end
		if events[1] then return #events == #retried.events and retried or new_batch(events); end
		while #events < batch_limit do
			local key, event = state.queue:tail();
			if not key then break; end
			size = size + #event.text + 1;
			if size > MAX_WEBHOOK then break; end
			state.queue:set(key, nil);
			if event.join then
				event.join.announced, event.join = true, nil;
			end
			table.insert(events, event);
		end
		return events[1] and new_batch(events);
	end

	-- What is refused goes to the end of the queue, for smaller batches: it must not keep what came later from being sent.
	local function put_back(batch)
		for _, event in ipairs(batch.events) do
			if not state.queue:get(event.key) then state.queue:set(event.key, event); end
		end
		state.batch, batch_limit = nil, math.max(1, math.floor(#batch.events / 2));
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
		state.batch, failures, batch_limit = nil, 0, math.min(batch_limit * 2, MAX_EVENTS);
		if state.queue:count() == 0 then -- otherwise what was refused may be in it
			if complaint ~= "" then
				module:log("info", "Webhooks are accepted");
				module:set_status("core", "Webhooks are accepted", true);
			end
			complaint, batch_limit = "", MAX_EVENTS;
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
		if state.queue:count() > 0 then schedule_flush(state.queue:count() >= batch_limit and TICK or MERGE); end
	end

	local function answered(batch, code, body, response)
		measure_answer(code);
		local ok, answer = pcall(json.decode, body or "");
		answer = ok and type(answer) == "table" and answer or {};
		if code >= 200 and code < 300 then return delivered(batch, answer); end

		local detail = cut(tostring(code == 0 and body or answer.detail or "no detail given"):gsub("%c", " "), 200);
		if code == 400 or code == 413 then
			put_back(batch);
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
		local this = {};
		flight, state.batch = this, batch;
		this.timer = module:add_timer(ANSWER_WITHIN, function ()
			if flight ~= this then return; end
			abort_flight();
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

	function flush()
		local batch = not flight and next_batch();
		if batch then send(batch); end
	end

	module:hook_global("stats-update", function ()
		local oldest, waiting = math.huge, state.queue:count();
		if state.batch then
			oldest, waiting = state.batch.since, waiting + #state.batch.events;
		end
		local _, event = state.queue:tail();
		if event then oldest = math.min(oldest, event.since); end
		measure_queue(waiting);
		measure_age(oldest < math.huge and time_now() - oldest or 0);
	end);

	-- Goes on with what an earlier life of the module has left.
	local function resume()
		if state.batch or state.queue:count() > 0 then schedule_flush(MERGE); end
	end

	return { enqueue = enqueue, resume = resume, stop = abort_flight };
end
