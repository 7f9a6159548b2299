-- Sender: sends the events of the outbox as webhooks, one request at a time, until the receiver has accepted them

local http = require "net.http";
local json = require "util.json";
local time = require "util.time";

local cut = module:require "text".cut;
local VERSION = module:require "contract".VERSION;
local monotonic, time_now = time.monotonic, time.now;

local MERGE = 0.1; -- seconds that an event waits for others: the two streams of one link close within this time
-- Seconds for a webhook request, connecting included. The other side is limited first: a receiver answers within 20,
-- its function is ended after 25, an HTTP API gives up after 30. An earlier retry would repeat what is being stored.
local ANSWER_WITHIN = 35;
local GIVE_WAY_AFTER = 5; -- seconds after which a request of renewals alone is aborted for the sake of other events
-- Webhook requests at once, and a second in the long run, retries included. This limits what remote hosts can make the
-- operator pay. Events merge while they wait. A full batch is exempt, because it holds much for its price.
local BURST, RATE = 60, 1;
local MAX_BACKOFF, MAX_RETRY_AFTER = 60, 3600; -- seconds between two attempts: ours, and what the receiver may request
local MAX_REJECTED_LOGGED = 10; -- of one webhook answer
-- A request with events is a heartbeat, too, if this part of ping_muc_heartbeat has passed. So a busy host sends no
-- request for it.
local HEARTBEAT_SHARE = 0.5;
local LEAST_LOOK, MOST_LOOK = 5, 60; -- seconds until the sender looks again whether a heartbeat is due
local TICK = 0.001; -- seconds until the next request, if one does not hold all events

local count_events = module:measure("events_sent", "counter");
local measure_answer = module:measure("last_answer", "amount"); -- HTTP status, 0 if there was no answer
local count_webhooks = module:metric("counter", "webhooks", "", "Webhooks by HTTP status, 0: no answer", { "status" });

return function (settings, state, outbox, signature)
	local flight; -- { timer, request, since, batch, gives_way }: the webhook request under way
	local flush_timer;
	local failures, complaint = 0, nil; -- failed attempts in a row, and the message about the last one
	local tokens, counted_at = BURST, monotonic();
	local on_new_receiver, accepted_at;
	local their_version; -- of the contract, in the receiver's last answer
	local flush;
	-- When the last heartbeat was accepted. The first one is due at once, so that the host is known to be alive, unless a
	-- request of a release without heartbeats is to be repeated.
	state.heartbeat_at = state.heartbeat_at or monotonic() - (state.batch and 0 or settings.heartbeat);

	local function schedule_flush(after)
		if flight or flush_timer then return; end
		flush_timer = module:add_timer(after, function ()
			flush_timer = nil;
			flush();
		end);
	end

	-- What the receiver answered

	-- The first of several equal failures is for the operator. The others are for debugging.
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

	local function log_rejected(batch, answer)
		local rejected = type(answer.rejected) == "table" and answer.rejected or {};
		for i = 1, math.min(#rejected, MAX_REJECTED_LOGGED) do
			local item = type(rejected[i]) == "table" and rejected[i] or {};
			local event = type(item.index) == "number" and batch.events[item.index + 1];
			module:log("warn", "Event rejected (%s): %s", cut(tostring(item.error), 200), event and event.text or "unknown");
		end
		if #rejected > MAX_REJECTED_LOGGED then
			module:log("warn", "%d more events rejected", #rejected - MAX_REJECTED_LOGGED);
		end
	end

	-- What the receiver knows of the contract. Older functions do not say.
	local function compare_versions(version)
		if version == their_version or type(version) ~= "string" or not version:find("^%d+%.%d+%.%d+$") then return; end
		their_version = version;
		if version ~= VERSION then
			module:log("warn", "The functions have version %s of the contract, and this module has %s. "
				.."Upgrade the older of the two", version, VERSION);
		end
	end

	local function accepted(batch, answer)
		count_events(#batch.events);
		failures, accepted_at = 0, time_now();
		if batch.is_heartbeat then state.heartbeat_at = monotonic(); end
		if batch.events[1] then outbox.accept(); end
		if outbox.waiting() == 0 then -- otherwise what was refused before may be among the events that wait
			if complaint ~= "" then
				module:log("info", "Webhooks are accepted");
				module:set_status("core", "Webhooks are accepted", true);
			end
			complaint = "";
		end
		log_rejected(batch, answer);
		compare_versions(answer.version);
		if outbox.waiting() > 0 then schedule_flush(outbox.fills_batch() and TICK or MERGE); end
	end

	local function complain_about(code, detail)
		if code == 401 then
			complain("error", "The webhook endpoint refuses our signature (%s). "
				.."Check that it knows the ping_muc_secret, and that the clocks of both sides are right", detail);
		elseif code == 410 then
			complain("error", "The webhook endpoint was removed (410). "
				.."Unload mod_%s, or set a new ping_muc_webhook_url and reload it", module.name);
		elseif code == 400 or code == 413 then
			complain("error", "The webhook endpoint does not accept our events (%d: %s)", code, detail);
		elseif code == 0 then
			complain("warn", "The webhook endpoint cannot be reached (%s)", detail);
		else
			complain("warn", "The webhook endpoint answers %d (%s)", code, detail);
		end
	end

	local function answered(batch, code, body, response)
		measure_answer(code);
		count_webhooks:with_labels(tostring(code)):add(1);
		local ok, answer = pcall(json.decode, body or "");
		answer = ok and type(answer) == "table" and answer or {};
		if code >= 200 and code < 300 then return accepted(batch, answer); end

		local detail = cut(tostring(code == 0 and body or answer.detail or "no detail given"):gsub("%c", " "), 200);
		if code == 400 or code == 413 or code >= 500 then
			outbox.put_back(batch, code == 400);
			if code == 413 and #batch.events > 1 then return schedule_flush(TICK); end
		end
		complain_about(code, detail);
		local retry_after = response and response.headers and response.headers["retry-after"];
		retry_later(tonumber((tostring(retry_after):match("^%d+$"))));
	end

	-- The request

	local function abort_flight()
		if not flight then return; end
		local request = flight.request;
		flight.timer:stop();
		flight = nil;
		-- 0.12 and 13.0 cannot cancel a request that is still connecting. If it is sent later, it does no harm.
		if type(request) == "table" and request.cancel then request:cancel("abandoned"); end
	end

	local function send(batch)
		local timestamp = ("%d"):format(os.time());
		local this = { since = monotonic(), batch = batch };
		flight = this;
		this.timer = module:add_timer(ANSWER_WITHIN, function ()
			if flight ~= this then return; end
			abort_flight();
			outbox.put_back(batch);
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

	-- Whether one more request may be sent now, which then counts; otherwise in how many seconds
	local function may_send()
		local now = monotonic();
		tokens, counted_at = math.min(BURST, tokens + (now - counted_at) * RATE), now;
		if tokens < 1 and not outbox.is_full() then return false, (1 - tokens) / RATE; end
		tokens = math.max(0, tokens - 1);
		return true;
	end

	-- A receiver at a new address may know none of our joins.
	local function look_for_new_receiver()
		if state.webhook_url == settings.webhook_url then return; end
		local is_first = not state.webhook_url;
		state.webhook_url = settings.webhook_url;
		if is_first then return; end
		module:log("info", "There is a new ping_muc_webhook_url: all joins are reported to it");
		on_new_receiver();
	end

	-- Seconds until a heartbeat is due (rule 12 in docs/rules.md)
	local function seconds_to_heartbeat(share)
		return settings.heartbeat > 0 and state.heartbeat_at + settings.heartbeat * share - monotonic() or math.huge;
	end

	function flush()
		local is_due, is_retry = seconds_to_heartbeat(1) <= 0, state.batch ~= nil;
		if flight or not is_due and not state.batch and outbox.waiting() == 0 then return; end
		local may, after = may_send();
		if not may then return schedule_flush(after); end
		look_for_new_receiver();
		local batch = outbox.next_batch();
		-- A retry remains the same request for as long as possible.
		is_due = is_due or batch and not is_retry and seconds_to_heartbeat(HEARTBEAT_SHARE) <= 0;
		if is_due then batch = outbox.heartbeat(batch); end
		if batch then send(batch); end
	end

	local function look()
		if seconds_to_heartbeat(1) <= 0 then schedule_flush(0); end
		return math.max(LEAST_LOOK, math.min(MOST_LOOK, seconds_to_heartbeat(1)));
	end
	module:add_timer(LEAST_LOOK, look);

	-- What the other parts ask for

	-- If the request under way holds no new events, it is aborted after some time, so that a new event goes first.
	local function give_way()
		local this = flight;
		if not this or this.batch.has_fresh or this.gives_way then return; end
		this.gives_way = true;
		module:add_timer(math.max(MERGE, this.since + GIVE_WAY_AFTER - monotonic()), function ()
			if flight ~= this then return; end
			abort_flight();
			outbox.put_back(this.batch);
			flush();
		end);
	end

	local function enqueue(...)
		if not outbox.add(...) then return; end
		schedule_flush(MERGE);
		give_way();
	end

	local function renew(...)
		if outbox.renew(...) then schedule_flush(MERGE); end
	end

	-- Sends a heartbeat now, if the host sends any.
	local function beat()
		state.heartbeat_at = -math.huge;
		schedule_flush(TICK);
	end

	-- With a low priority: by then the settings have followed.
	module:hook_global("config-reloaded", look_for_new_receiver, -1000);

	-- Continues with what waited before the module was reloaded.
	local function resume()
		look_for_new_receiver();
		if state.batch or outbox.waiting() > 0 then schedule_flush(MERGE); end
	end

	return {
		enqueue = enqueue, renew = renew, drop = outbox.drop, resume = resume, stop = abort_flight, beat = beat;
		-- When the last webhook was accepted, in seconds; nil if none was since the module was loaded
		accepted_at = function () return accepted_at; end;
		-- Whether the newest attempt has failed
		is_failing = function () return failures > 0; end;
		-- Sets what is called when events go to another address than before.
		on_new_receiver = function (callback) on_new_receiver = callback; end;
	};
end
