-- mod_ping_muc_webhook: the XMPP server's half of ping-muc
--
-- Reports which local session is in which remote room, and which s2s connection closed, as signed webhooks; and
-- serves a small, signed HTTP API through which the receiver pings the rooms as the users and notifies those who
-- are out. It decides nothing itself. The contract is in ../../protocol/.

local cache = require "util.cache";
local encodings = require "util.encodings";
local hashes = require "util.hashes";
local http = require "net.http";
local jid = require "util.jid";
local json = require "util.json";
local lxp = require "lxp";
local new_id = require "util.id";
local parse_url = require "socket.url".parse;
local st = require "util.stanza";
local time_now = require "util.time".now;

local base64, utf8_valid, xml_escape = encodings.base64, encodings.utf8.valid, st.xml_escape;
local nameprep, resourceprep = encodings.stringprep.nameprep, encodings.stringprep.resourceprep;
local hosts, full_sessions = prosody.hosts, prosody.full_sessions;

local xmlns_disco = "http://jabber.org/protocol/disco#info";
local xmlns_muc = "http://jabber.org/protocol/muc";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";
local xmlns_ping = "urn:xmpp:ping";
local xmlns_ping_muc = "urn:ping-muc:0";
local xmlns_stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";

-- Bounds

local MAX_JOINS = 1000; -- of one session; beyond this joins are not tracked
local MAX_ASKS = 1000; -- rooms a session has asked to enter, all at once after a login, and not heard from; the oldest is forgotten
local MAX_EVENTS, MAX_WEBHOOK = 1000, 256 * 1024; -- events and bytes in one webhook request
local MERGE = 0.1; -- seconds an event waits for others: the two streams of one link close within this
local ANSWER_WITHIN = 10; -- seconds for a webhook request, connecting included
local MAX_BACKOFF, MAX_RETRY_AFTER = 60, 3600; -- seconds between two tries: our own choice, the receiver's wish
local MAX_REJECTED_LOGGED = 10; -- of one webhook answer
local RENEW_SLICE = 1000; -- joins announced again in one go
local ADOPT_IN_FLIGHT, ADOPT_WITHIN = 50, 60; -- queries to rooms that users were in before we were loaded; seconds
local MAX_BODY = 1024 * 1024; -- bytes of a stanza request
local MAX_MARKS = 30000; -- in a stanza request: characters that cost a parser time; a thousand notices have 24,000
local MAX_STANZAS = 1000; -- in a stanza request
local MAX_REQUESTS = 16; -- stanza requests in flight
local MAX_IN_FLIGHT = 1000; -- queries to one remote host: it reads them at its own pace
local MAX_ID, MAX_JID, MAX_REASON, MAX_CLOSE_REASON = 128, 3071, 1024, 256; -- bytes
local MAX_ANSWER, MAX_ANSWER_TEXT = 8192, 1024; -- bytes: of a room's answer passed as it came; of its text otherwise
local TOLERANCE = 300; -- seconds a signed timestamp may differ from our clock
local REPLAY_MEMORY, MAX_REPLAYS = 2 * TOLERANCE, 10000; -- seconds (a timestamp may be ahead, too); requests
local SLICE, CHUNK, TICK = 50, 32768, 0.001; -- stanzas, or bytes, dealt with before others get the event loop; seconds until the next

-- Settings

local function refuse(name, need, got, example)
	error(("%s must be %s, but %s. For example: %s = %s"):format(name, need, got, name, example), 0);
end

local function describe(value)
	if value == nil then return "it is not set"; end
	if type(value) == "table" then return "it is a table"; end
	return ("it is the %s %s"):format(type(value), type(value) == "string" and ("%q"):format(value) or tostring(value));
end

local function seconds_setting(name, default, min, max)
	local value = module:get_option(name);
	if value == nil then return default; end
	if type(value) ~= "number" or value % 1 ~= 0 or value < min or value > max then
		refuse(name, ("a whole number of seconds from %d to %d"):format(min, max), describe(value), default);
	end
	return math.floor(value);
end

local function is_loopback(name)
	if name == "localhost" or name == "::1" then return true; end
	local a, b, c = name:match("^127%.(%d+)%.(%d+)%.(%d+)$");
	return a and tonumber(a) < 256 and tonumber(b) < 256 and tonumber(c) < 256;
end

local function url_setting(name)
	local value, example = module:get_option(name), '"https://example.execute-api.us-east-1.amazonaws.com/webhooks"';
	local url = type(value) == "string" and value:match("^[\33-\126]+$") and parse_url(value);
	if not url or not url.host or (url.scheme ~= "https" and url.scheme ~= "http") then
		refuse(name, "an https URL", describe(value), example);
	elseif url.scheme == "http" and not is_loopback(url.host:gsub("[%[%]]", "")) then
		refuse(name, "an https URL, because plain http is for loopback addresses only", describe(value), example);
	end
	return value;
end

local function secrets_setting(name)
	local value = module:get_option(name);
	local need = '"whsec_" and the base64 of 24 to 64 random bytes, or a list of two such strings while rotating';
	-- The value itself must never reach a log, not even a malformed one.
	local function refuse_secret(got)
		refuse(name, need, got, '"whsec_..." with ... from: openssl rand -base64 32');
	end
	if value == nil then refuse_secret("it is not set"); end
	local list = type(value) == "table" and value or { value };
	if #list < 1 or #list > 2 then refuse_secret(("it is a list of %d"):format(#list)); end
	local keys = {};
	for i, secret in ipairs(list) do
		if type(secret) ~= "string" then refuse_secret("it holds a "..type(secret)); end
		local text = secret:match("^whsec_([%w+/]+)=?=?$");
		local key = text and base64.decode(text..("="):rep(-#text % 4));
		if not key or base64.encode(key):gsub("=", "") ~= text then
			refuse_secret(("the one at %d does not have this form"):format(i));
		elseif #key < 24 or #key > 64 then
			refuse_secret(("the one at %d holds %d bytes"):format(i, #key));
		end
		keys[i] = key;
	end
	return keys;
end

local function hosts_setting(name)
	local value, names = module:get_option(name, {}), {};
	for key, remote in pairs(type(value) == "table" and value or { value }) do
		local prepped = type(remote) == "string" and not remote:find("[@/%s]") and nameprep(remote);
		if type(key) ~= "number" or not prepped or prepped == "" then
			refuse(name, "a list of host names", "one entry is wrong: "..describe(remote), '{ "irc.example.org" }');
		end
		names[prepped] = true;
	end
	return names;
end

local function boolean_setting(name)
	local value = module:get_option(name);
	if value ~= nil and type(value) ~= "boolean" then refuse(name, "true or false", describe(value), "true"); end
	return value or false;
end

local webhook_url = url_setting("ping_muc_webhook_url");
local secrets = secrets_setting("ping_muc_secret");
local delay = seconds_setting("ping_muc_delay", 60, 1, 86400);
local timeout = seconds_setting("ping_muc_timeout", 60, 1, 300);
local patience = seconds_setting("ping_muc_patience", 0, 0, 86400);
local refresh = seconds_setting("ping_muc_refresh", 86400, 1, 259200);
local excluded = hosts_setting("ping_muc_exclude");
local dry_run = boolean_setting("ping_muc_dry_run");

module:depends("http");
module:add_feature(xmlns_ping_muc);

-- Metrics

local count_events = module:measure("events_sent", "counter");
local count_pings = module:measure("pings", "counter");
local count_notices = module:measure("notices", "counter");
local measure_queue = module:measure("queue_length", "amount");
local measure_age = module:measure("oldest_event_age", "amount", { unit = "seconds" });
local measure_joins = module:measure("joins", "amount");
local measure_answer = module:measure("last_answer", "amount"); -- HTTP status, 0 when there was no answer

-- State that outlives a reload; a different shape needs a new version

local state = {
	version = 1;
	last_at = 0;
	tracks = {}; -- full JID → { rooms = { room → join }, count, asks }
	remotes = {}; -- remote host → number of joins there
	joins = 0;
	queue = cache.new(2^31); -- key → event, the oldest at the tail; never full: folding bounds it by what is live
	batch = nil; -- taken from the queue, and not accepted yet: its retry is the same request, byte for byte
	replays = cache.new(MAX_REPLAYS, false); -- id and timestamp of accepted stanza requests → when to forget
};

-- Microseconds; strictly increasing, because it orders events and names joins
local function next_at()
	state.last_at = math.max(state.last_at + 1, math.floor(time_now() * 1e6));
	return state.last_at;
end

local function signatures(id, timestamp, body)
	local list = {};
	for i, key in ipairs(secrets) do
		list[i] = "v1,"..base64.encode(hashes.hmac_sha256(key, id.."."..timestamp.."."..body));
	end
	return list;
end

-- nil for text that is not UTF-8
local function cut(text, max)
	for stop = max, max - 3, -1 do
		local part = text:sub(1, stop);
		if utf8_valid(part) then return part; end
	end
end

-- Sender

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
	local ok, request = pcall(http.request, webhook_url, {
		method = "POST"; body = batch.body;
		headers = {
			["Content-Type"] = "application/json";
			["webhook-id"] = batch.id; ["webhook-timestamp"] = timestamp;
			["webhook-signature"] = table.concat(signatures(batch.id, timestamp, batch.body), " ");
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
	measure_joins(state.joins);
end);

-- Joins

local function join_key(full, room)
	return room.."\0"..full;
end

local function find_join(full, room)
	local track = state.tracks[full];
	return track and track.rooms[room];
end

local function track_of(full)
	local track = state.tracks[full];
	if not track then
		track = { rooms = {}; count = 0; asks = cache.new(MAX_ASKS) };
		state.tracks[full] = track;
	end
	return track;
end

local function drop_idle_track(full)
	local track = state.tracks[full];
	if track and track.count == 0 and track.asks:count() == 0 then state.tracks[full] = nil; end
end

local function is_watched(remote)
	return remote and not hosts[remote] and not excluded[remote];
end

local function announce(full, room, join)
	enqueue("muc.joined", join_key(full, room), join.at, { user = full, room = room, nick = join.nick }, join);
end

local function record_join(full, room, nick)
	local track = track_of(full);
	local join = track.rooms[room];
	track.asks:set(room, nil);
	if not join then
		if track.count >= MAX_JOINS then
			if not track.warned then module:log("warn", "%s is in %d rooms, more are not watched", full, MAX_JOINS); end
			track.warned = true;
			return;
		end
		local remote = jid.host(room);
		-- A leave that still waits is about to be replaced: the receiver knows an earlier join.
		join = { announced = state.queue:get(join_key(full, room)) ~= nil };
		track.rooms[room], track.count = join, track.count + 1;
		state.remotes[remote], state.joins = (state.remotes[remote] or 0) + 1, state.joins + 1;
	end
	join.at, join.nick, join.rejoining = next_at(), nick, nil;
	announce(full, room, join);
end

local function end_join(full, room, quietly)
	local join = find_join(full, room);
	if not join then return; end
	local track, remote, key = state.tracks[full], jid.host(room), join_key(full, room);
	track.rooms[room], track.count = nil, track.count - 1;
	state.remotes[remote] = state.remotes[remote] > 1 and state.remotes[remote] - 1 or nil;
	state.joins = state.joins - 1;
	drop_idle_track(full);
	if join.announced and not quietly then
		enqueue("muc.left", key, next_at(), { user = full, room = room });
	else
		state.queue:set(key, nil);
	end
end

-- Late, so that what another module swallowed is not taken for asked.
module:hook("pre-presence/full", function (event)
	local origin, stanza = event.origin, event.stanza;
	local full, node, remote = origin.full_jid, jid.split(stanza.attr.to);
	-- The broadcast presence also goes to whoever probes; it asks for nothing.
	if stanza.attr.type ~= nil or rawequal(stanza, origin.presence) then return; end
	if not full or not is_watched(remote) then return; end
	local room = jid.join(node, remote);
	local join = find_join(full, room);
	if join and stanza:get_child("x", xmlns_muc) then join.rejoining = true; end
	if not join or join.rejoining then track_of(full).asks:set(room, true); end
end, -1000);

local function leave(event)
	local full = event.origin.full_jid;
	if event.stanza.attr.type ~= "unavailable" or not full or not state.tracks[full] then return; end
	local room = jid.bare(event.stanza.attr.to);
	state.tracks[full].asks:set(room, nil);
	end_join(full, room);
	drop_idle_track(full);
end
module:hook("pre-presence/full", leave, 1000);
module:hook("pre-presence/bare", leave, 1000);

-- Late: by then mod_presence has said goodbye to the rooms that it knows of.
module:hook("resource-unbind", function (event)
	local full = event.session.full_jid;
	local track = state.tracks[full];
	if not track then return; end
	for room in pairs(track.rooms) do end_join(full, room); end
	state.tracks[full] = nil;
end, -1000);

module:hook("presence/full", function (event)
	local stanza, full = event.stanza, event.stanza.attr.to;
	local track = state.tracks[full];
	local node, remote, nick = jid.split(stanza.attr.from);
	if not track or not node or not is_watched(remote) then return; end
	local room = jid.join(node, remote);
	local join, asked = track.rooms[room], track.asks:get(room);
	if not join and not asked then return; end

	local statuses, x = {}, stanza:get_child("x", xmlns_muc_user);
	for status in (x or stanza):childtags("status", xmlns_muc_user) do statuses[status.attr.code or ""] = true; end

	local presence_type = stanza.attr.type;
	if presence_type == "error" then
		track.asks:set(room, nil);
		if join and join.rejoining then end_join(full, room); end
		drop_idle_track(full);
	elseif presence_type == nil and nick and statuses["110"] then
		if not join or join.rejoining or join.nick ~= nick then record_join(full, room, nick); end
	elseif presence_type == "unavailable" and join and (statuses["110"] or nick == join.nick) then
		if not statuses["303"] then return end_join(full, room); end
		-- Taken from here already: not every service marks the new nick's presence with 110. One that does has the last word.
		local item = x:get_child("item");
		local new_nick = item and item.attr.nick and resourceprep(item.attr.nick);
		if new_nick and new_nick ~= "" and new_nick ~= join.nick then record_join(full, room, new_nick); end
	end
end, 1000);

module:add_timer(refresh, function ()
	local all = {};
	for full, track in pairs(state.tracks) do
		for room in pairs(track.rooms) do table.insert(all, { full, room }); end
	end
	local function renew(from)
		for i = from, math.min(from + RENEW_SLICE - 1, #all) do
			local full, room = all[i][1], all[i][2];
			local join = find_join(full, room);
			if join and not state.queue:get(join_key(full, room)) then announce(full, room, join); end
		end
		if from + RENEW_SLICE <= #all then module:add_timer(MERGE, function () renew(from + RENEW_SLICE); end); end
	end
	renew(1);
	return refresh;
end);

-- Closes

local function closed(event)
	local session, reason = event.session, event.reason;
	if type(reason) == "table" then reason = reason.text or reason.condition; end
	reason = type(reason) == "string" and cut(reason, MAX_CLOSE_REASON) or nil;
	local remotes = {};
	for remote, status in pairs(session.hosts or {}) do
		if status.authed then remotes[remote] = true; end
	end
	local peer = session.direction == "outgoing" and session.to_host or session.from_host;
	if peer then remotes[peer] = true; end
	for remote in pairs(remotes) do
		if state.remotes[remote] then
			enqueue("s2s.closed", remote, next_at(), {
				remote = remote, direction = session.direction, reason = reason,
				delay = delay, timeout = timeout, patience = patience, dry_run = dry_run,
			});
		end
	end
end
module:hook("s2sin-destroyed", closed);
module:hook("s2sout-destroyed", closed);

-- Queries to rooms

local pending = {}; -- id on the wire → { from, to, remote, answered }
local in_flight = {}; -- remote host → number of them
local planned = {}; -- remote host → number of those that requests have yet to send

local function forget_query(id)
	local remote = pending[id].remote;
	pending[id] = nil;
	in_flight[remote] = in_flight[remote] > 1 and in_flight[remote] - 1 or nil;
end

-- Cloned for each query: addresses and ids that were checked before would be checked again when it is built anew.
local ping_query = st.stanza("iq", { type = "get" }):tag("ping", { xmlns = xmlns_ping }):reset();
local disco_query = st.stanza("iq", { type = "get" }):tag("query", { xmlns = xmlns_disco }):reset();

-- The id is not to be guessed: the answer's sender is not the only one who can reach the user with an iq.
local function send_query(from, to, template, on_answer)
	local id, remote = new_id.medium(), jid.host(to);
	pending[id] = { from = from, to = to, remote = remote, answered = on_answer };
	in_flight[remote] = (in_flight[remote] or 0) + 1;
	local stanza = st.clone(template);
	stanza.attr.id, stanza.attr.from, stanza.attr.to = id, from, to;
	module:send(stanza);
	return id;
end

module:hook("iq/full", function (event)
	local stanza, origin = event.stanza, event.origin;
	local query = pending[stanza.attr.id];
	if not query or (stanza.attr.type ~= "result" and stanza.attr.type ~= "error")
	or stanza.attr.from ~= query.to or stanza.attr.to ~= query.from then return; end
	forget_query(stanza.attr.id);
	-- What the server itself bounces comes from a dummy s2s session, or from the host.
	query.answered(stanza, (origin.type == "s2sin" or origin.type == "s2sout") and not origin.dummy);
	return true;
end, 1000);

-- Joins that are older than this module: mod_presence knows to whom a session sent directed presence, the room knows
-- whether it is one, and whether the session is in it.
local function adopt_joins()
	local rooms, tasks, busy = {}, {}, 0;
	local pump;

	local function query(from, to, template, on_answer)
		local id, timer;
		busy = busy + 1;
		local function finish(...)
			timer:stop();
			busy = busy - 1;
			on_answer(...);
			pump();
		end
		timer = module:add_timer(ADOPT_WITHIN, function ()
			if not pending[id] then return; end
			forget_query(id);
			finish();
		end);
		id = send_query(from, to, template, finish);
	end

	local function is_still_there(candidate)
		local session, join = full_sessions[candidate.full], find_join(candidate.full, candidate.room);
		return not join and session and session.directed and session.directed[candidate.occupant];
	end

	local function verify(candidate)
		if not is_still_there(candidate) then return; end
		query(candidate.full, candidate.occupant, ping_query, function (answer, genuine)
			local joined = not genuine or answer.attr.type == "result";
			if not joined then
				local error_type, condition = answer:get_error();
				joined = error_type == "wait" or condition == "service-unavailable" or condition == "feature-not-implemented"
					or condition == "item-not-found" or condition == "remote-server-not-found" or condition == "remote-server-timeout";
			end
			if joined and is_still_there(candidate) then
				record_join(candidate.full, candidate.room, jid.resource(candidate.occupant));
			end
		end);
	end

	local function explore(candidates)
		local asker;
		for _, candidate in ipairs(candidates) do asker = asker or is_still_there(candidate) and candidate; end
		if not asker then return; end
		query(asker.full, asker.room, disco_query, function (answer, genuine)
			local info = genuine and answer.attr.type == "result" and answer:get_child("query", xmlns_disco);
			local is_room = false;
			for tag in (info or st.stanza("nothing")):childtags() do
				is_room = is_room or tag.attr.var == xmlns_muc or (tag.name == "identity" and tag.attr.category == "conference");
			end
			for _, candidate in ipairs(is_room and candidates or {}) do
				table.insert(tasks, function () verify(candidate); end);
			end
		end);
	end

	function pump()
		while busy < ADOPT_IN_FLIGHT and tasks[1] do table.remove(tasks)(); end
	end

	for _, user in pairs(hosts[module.host].sessions or {}) do
		for _, session in pairs(user.sessions) do
			for occupant in pairs(session.directed or {}) do
				local node, remote, nick = jid.split(occupant);
				local room = jid.join(node, remote);
				if node and nick and is_watched(remote) and not find_join(session.full_jid, room) then
					rooms[room] = rooms[room] or {};
					table.insert(rooms[room], { full = session.full_jid, room = room, occupant = occupant });
				end
			end
		end
	end
	for _, candidates in pairs(rooms) do
		table.insert(tasks, function () explore(candidates); end);
	end
	pump();
end

-- Stanza API: who may ask

local titles = {
	[400] = "Bad Request"; [401] = "Unauthorized"; [413] = "Content Too Large"; [415] = "Unsupported Media Type";
	[429] = "Too Many Requests"; [503] = "Service Unavailable";
};

local function problem(status, detail)
	local later = status == 429 or status == 503;
	return {
		status_code = status;
		headers = { content_type = "application/problem+json"; retry_after = later and "1" or nil };
		body = json.encode({ type = "about:blank", title = titles[status], status = status, detail = detail });
	};
end

-- Returns nothing when the request is signed by a live secret and within the tolerance.
local function check_signature(headers, body)
	local id, timestamp, header = headers.webhook_id, headers.webhook_timestamp, headers.webhook_signature;
	if not id or not timestamp or not header then
		return problem(401, "webhook-id, webhook-timestamp and webhook-signature are required");
	elseif not id:find("^[\32-\126]+$") or #id > 255 then
		return problem(401, "webhook-id must be 1 to 255 printable ASCII characters");
	elseif not timestamp:find("^%d+$") or #timestamp > 10 then
		return problem(401, "webhook-timestamp must be whole seconds since the epoch");
	end
	local match = false;
	for _, expected in ipairs(signatures(id, timestamp, body)) do
		for given in header:gmatch("%S+") do
			if hashes.equals(expected, given) then match = true; end
		end
	end
	if not match then return problem(401, "webhook-signature matches no live secret"); end
	local ahead = tonumber(timestamp) - os.time();
	if math.abs(ahead) > TOLERANCE then
		return problem(401, ("webhook-timestamp is %d seconds %s this server's clock, %d are tolerated: check both clocks")
			:format(math.abs(ahead), ahead > 0 and "ahead of" or "behind", TOLERANCE));
	end
end

local function replay_key(headers)
	return headers.webhook_id.."\0"..headers.webhook_timestamp;
end

local function remember_request(headers)
	local replays, now = state.replays, os.time();
	while true do
		local oldest, forget_at = replays:tail();
		if not oldest or forget_at > now then break; end
		replays:set(oldest, nil);
	end
	local key = replay_key(headers);
	return replays:set(key, now + REPLAY_MEMORY) and key;
end

-- Stanza API: what is taken

local function split_prepped(address)
	if not address or #address > MAX_JID then return; end
	local node, remote, resource = jid.prepped_split(address);
	if jid.join(node, remote, resource) == address then return node, remote, resource; end
end

local function check_join(stanza)
	local join = stanza:get_child("join", xmlns_ping_muc);
	local at = join and join.attr.at or "";
	return #at <= 16 and at:find("^%d+$") and tonumber(at) or nil;
end

local function check_notice_x(x)
	local reason, statuses, items = nil, {}, 0;
	for _, tag in ipairs(x.tags) do
		if tag.attr.xmlns ~= xmlns_muc_user then return nil, "a notice's <x> takes no other namespace"; end
		if tag.name == "item" then
			local only = tag.tags[1];
			items = items + 1;
			for name, value in pairs(tag.attr) do
				if name ~= "xmlns" and not ((name == "affiliation" or name == "role") and value == "none") then
					return nil, "a notice's <item> has affiliation and role none and no other attribute";
				end
			end
			if not tag.attr.affiliation or not tag.attr.role or #tag.tags ~= 1 or only.name ~= "reason"
			or only.attr.xmlns ~= xmlns_muc_user or only.tags[1] then
				return nil, "a notice's <item> has affiliation and role none and one <reason>";
			end
			reason = only:get_text() or "";
		elseif tag.name == "status" and tag.attr.code and not tag.tags[1] and not statuses[tag.attr.code] then
			statuses[tag.attr.code] = true;
		else
			return nil, "a notice's <x> takes one <item> and one <status> of each code";
		end
	end
	if items ~= 1 or #x.tags ~= 4 or not (statuses["110"] and statuses["330"] and statuses["333"]) then
		return nil, "a notice has one <item> and the statuses 110, 330 and 333";
	elseif #reason > MAX_REASON then
		return nil, "a notice's reason has at most "..MAX_REASON.." bytes";
	end
	return reason;
end

-- Returns what the stanza asks for, or nil and why it is not taken.
local function check_stanza(stanza)
	local attr, first, second = stanza.attr, stanza.tags[1], stanza.tags[2];
	local is_notice = stanza.name == "presence";
	if not (stanza.name == "iq" and attr.type == "get") and not (is_notice and attr.type == "unavailable") then
		return nil, "only <iq type='get'> and <presence type='unavailable'> are taken";
	end
	local full, occupant = attr.from, attr.to;
	if is_notice then full, occupant = occupant, full; end
	local user, user_host, resource = split_prepped(full);
	local node, remote, nick = split_prepped(occupant);
	if not user or user_host ~= module.host or not resource then
		return nil, "the user must be a normalised full JID of "..module.host;
	elseif not node or hosts[remote] then
		return nil, "the room must be a normalised JID of a room on a remote host";
	elseif excluded[remote] then
		return nil, remote.." is in ping_muc_exclude";
	end
	local item = { full = full, occupant = occupant, room = jid.join(node, remote), nick = nick, remote = remote };
	local named = is_notice and xmlns_muc_user.." x" or first and (first.attr.xmlns or "").." "..first.name;
	if named == xmlns_disco.." query" then
		if nick or second or first.tags[1] or first.attr.node then
			return nil, "disco#info goes to a room's bare JID, alone and without a node";
		end
		item.kind = "disco";
		return item;
	elseif not is_notice and named ~= xmlns_ping.." ping" then
		return nil, "an <iq> must hold urn:xmpp:ping or disco#info";
	end
	item.at = check_join(stanza);
	if not item.at or not nick or #stanza.tags ~= 2 then
		return nil, "a ping and a notice name an occupant, and its join in <join xmlns='"..xmlns_ping_muc.."' at='...'/>";
	elseif not is_notice then
		if first.tags[1] then return nil, "a ping is empty"; end
		item.kind = "ping";
		return item;
	end
	local x, problem_text = stanza:get_child("x", xmlns_muc_user), "a notice holds muc#user";
	if x then item.reason, problem_text = check_notice_x(x); end
	if not item.reason then return nil, problem_text; end
	item.kind = "notice";
	return item;
end

-- Returns a function that reads on: it returns nil while there is more, then the root, or false for what is not XML.
-- util.xml reads all at once, and gives every element a copy of all prefixes: thousands of each would stall the server.
local function xml_reader(body)
	local root, from = { tags = {} }, 1;
	local open = { root };
	-- A document type could define entities that grow without end.
	local function stop(parser) if not parser:stop() then error("cannot stop"); end end
	local handler = { StartDoctypeDecl = stop; Comment = stop; ProcessingInstruction = stop };
	-- Put together here, as util.stanza's builder checks once more what the parser has checked, at a third of all the time.
	function handler.StartElement(_, tag, attr)
		local xmlns, name = tag:match("^(.*)\1(.*)$");
		for i = #attr, 1, -1 do attr[i] = nil; end
		attr.xmlns = xmlns;
		local parent = open[#open];
		local element = setmetatable({ name = name or tag, attr = attr, tags = {} }, st.stanza_mt);
		parent[#parent + 1], parent.tags[#parent.tags + 1], open[#open + 1] = element, element, element;
	end
	function handler.CharacterData(_, text) table.insert(open[#open], text); end
	function handler.EndElement() open[#open] = nil; end
	local parser = lxp.new(handler, "\1");
	return function ()
		local chunk = body:sub(from, from + CHUNK - 1);
		from = from + CHUNK;
		local ok, done = pcall(parser.parse, parser, chunk);
		if not ok or not done then return false; end
		if from <= #body then return nil; end
		ok, done = pcall(parser.parse, parser);
		return ok and done and root.tags[1];
	end
end

local function has_too_many_marks(body)
	local _, marks = body:gsub("[<&=\r\n]", "", MAX_MARKS + 1);
	return marks > MAX_MARKS;
end

-- Returns the stanzas of a request and its timeout, or nil and what is wrong with the whole of it.
local function check_root(root)
	local function in_our_namespace(element)
		return element.attr.xmlns == nil or element.attr.xmlns == "jabber:client";
	end
	if root.name ~= "xmpp" or not in_our_namespace(root) then return nil, "the root must be <xmpp>"; end
	local wait = root.attr.timeout or "";
	wait = #wait <= 3 and wait:find("^%d+$") and tonumber(wait) or 0;
	if wait < 1 or wait > 300 then return nil, "timeout must be a whole number from 1 to 300"; end
	if #root.tags > MAX_STANZAS then return nil, "more than "..MAX_STANZAS.." stanzas"; end
	local ids = {};
	for i, stanza in ipairs(root.tags) do
		local id, name = stanza.attr.id, stanza.name;
		if not in_our_namespace(stanza) or (name ~= "iq" and name ~= "presence" and name ~= "message") then
			return nil, ("child %d is not a stanza"):format(i);
		elseif not id or id == "" or #id > MAX_ID then
			return nil, ("stanza %d needs an id of 1 to %d bytes"):format(i, MAX_ID);
		elseif ids[id] then
			return nil, ("stanza %d has the id of an earlier one"):format(i);
		end
		ids[id] = true;
	end
	return root.tags, wait;
end

-- Stanza API: answers

local function answer_to(item, answer_type)
	return st.stanza(item.name, { type = answer_type, id = item.id, from = item.to, to = item.from });
end

local function server_error(item, error_type, condition, text, extra)
	local answer = answer_to(item, "error"):tag("error", { type = error_type, by = module.host })
		:tag(condition, { xmlns = xmlns_stanzas }):up();
	if text then answer:text_tag("text", text, { xmlns = xmlns_stanzas }); end
	if extra then answer:tag(extra, { xmlns = xmlns_ping_muc }):up(); end
	return tostring(answer);
end

local function room_answer(item, stanza, genuine)
	if stanza.attr.type == "result" then -- nearly every answer, so written as it is, without building it before
		return ("<iq type='result' id='%s' from='%s' to='%s'/>"):format(xml_escape(item.id), xml_escape(item.to), xml_escape(item.from));
	end
	local error_type, condition, text = stanza:get_error();
	if not genuine then
		if condition == "remote-server-not-found" then return server_error(item, "cancel", condition); end
		return server_error(item, "wait", "remote-server-timeout");
	end
	-- What is nested too deep for Lua's stack cannot be written down
	local fine, answer = pcall(function ()
		local copy = st.clone(stanza);
		copy.attr = answer_to(item, "error").attr;
		for _, tag in ipairs(copy.tags) do
			if tag.name == "error" and tag.attr.by == module.host then tag.attr.by = nil; end
		end
		return tostring(copy);
	end);
	if fine and #answer <= MAX_ANSWER then return answer; end
	if not condition or #condition > MAX_ID then condition = "undefined-condition"; end
	if not error_type or #error_type > MAX_ID then error_type = "cancel"; end
	local copy = answer_to(item, "error"):tag("error", { type = error_type })
		:tag(condition, { xmlns = xmlns_stanzas }):up();
	if text then copy:text_tag("text", cut(text, MAX_ANSWER_TEXT), { xmlns = xmlns_stanzas }); end
	return tostring(copy);
end

local function is_reachable(remote)
	local session = hosts[module.host].s2sout[remote];
	return session and (session.type == "s2sout" or session.type == "s2sin");
end

-- Stanza API: requests

local requests, request_count = {}, 0;

-- The queries of a request count from when it is taken: another that comes before they are sent must not fit in, too.
local function plan(request, remote, more)
	request.planned[remote] = (request.planned[remote] or 0) + more;
	planned[remote] = (planned[remote] or 0) + more;
	if planned[remote] == 0 then planned[remote] = nil; end
end

local function close_request(request)
	if not requests[request] then return; end
	requests[request], request_count = nil, request_count - 1;
	if request.timer then request.timer:stop(); end
	for remote, count in pairs(request.planned) do plan(request, remote, -count); end
	for id in pairs(request.waiting) do forget_query(id); end
end

local function respond(request, result)
	close_request(request);
	local response = request.response;
	response.status_code = result.status_code or 200;
	for name, value in pairs(result.headers) do response.headers[name] = value; end
	response:send(result.body);
end

local function respond_when_done(request)
	if not requests[request] or request.next <= #request.items or next(request.waiting) then return; end
	respond(request, {
		headers = { content_type = "application/xmpp+xml" };
		body = "<xmpp>"..table.concat(request.answers).."</xmpp>";
	});
end

-- The notice is built here from a room's name, a nick that the room confirmed, and a text: nothing else can be said.
local function deliver_notice(item, session)
	local sent = session.send(st.presence({ type = "unavailable", id = item.id, from = item.occupant, to = item.full })
		:tag("x", { xmlns = xmlns_muc_user })
			:tag("item", { affiliation = "none", role = "none" }):text_tag("reason", item.reason):up()
			:tag("status", { code = "110" }):up():tag("status", { code = "330" }):up():tag("status", { code = "333" }):up());
	if not sent then return server_error(item, "cancel", "recipient-unavailable"); end
	count_notices(1);
	end_join(item.full, item.room, true);
end

local function handle_item(request, item)
	if item.refused then return server_error(item, "modify", "policy-violation", item.refused); end
	if item.kind ~= "notice" then plan(request, item.remote, -1); end
	local session, join = full_sessions[item.full], find_join(item.full, item.room);
	if not session then return server_error(item, "cancel", "recipient-unavailable"); end
	if not join or (item.at and (join.at ~= item.at or join.nick ~= item.nick or join.rejoining)) then
		return server_error(item, "cancel", "conflict");
	end
	if item.kind == "notice" then return deliver_notice(item, session); end

	local id, early;
	local function on_answer(stanza, genuine)
		if not id then early = room_answer(item, stanza, genuine); return; end
		request.waiting[id] = nil;
		table.insert(request.answers, room_answer(item, stanza, genuine));
		respond_when_done(request);
	end
	if item.kind == "ping" then
		count_pings(1);
		id = send_query(item.full, item.occupant, ping_query, on_answer);
	else
		id = send_query(item.full, item.room, disco_query, on_answer);
	end
	-- A local bounce can come back before the sending returns.
	if not early then request.waiting[id] = item; end
	return early;
end

local function expire(request)
	for id, item in pairs(request.waiting) do
		local extra = is_reachable(item.remote) and "no-answer" or nil;
		table.insert(request.answers, server_error(item, "wait", "remote-server-timeout", nil, extra));
		forget_query(id);
	end
	request.waiting = {};
	respond_when_done(request);
end

local function later(step, request)
	module:add_timer(TICK, function () step(request); end);
end

local function work(request)
	if not requests[request] then return; end
	local last = math.min(request.next + SLICE - 1, #request.items);
	for i = request.next, last do
		table.insert(request.answers, (handle_item(request, request.items[i])));
	end
	request.next = last + 1;
	if request.next <= #request.items then
		later(work, request);
		return;
	end
	-- From here on, so that a slow start of a long request does not look like silence of the rooms
	if next(request.waiting) then
		request.timer = module:add_timer(request.timeout, function () expire(request); end);
	end
	respond_when_done(request);
end

-- Nothing of it was sent, so there is nothing to remember.
local function turn_away(request, status, detail)
	state.replays:set(request.key, nil);
	respond(request, problem(status, detail));
end

-- All of a request is looked at before any of it is sent.
local function examine(request)
	if not requests[request] then return; end
	local stanzas, items = request.stanzas, request.items;
	local last = math.min(#items + SLICE, #stanzas);
	for i = #items + 1, last do
		local stanza = stanzas[i];
		local item, why = check_stanza(stanza);
		item = item or { refused = why };
		item.name, item.id, item.from, item.to = stanza.name, stanza.attr.id, stanza.attr.from, stanza.attr.to;
		items[i] = item;
	end
	if last < #stanzas then
		later(examine, request);
		return;
	end
	for _, item in ipairs(items) do
		if item.kind == "ping" or item.kind == "disco" then plan(request, item.remote, 1); end
	end
	for remote in pairs(request.planned) do
		if planned[remote] + (in_flight[remote] or 0) > MAX_IN_FLIGHT then
			return turn_away(request, 429, ("more than %d pings would be in flight to one remote host"):format(MAX_IN_FLIGHT));
		end
	end
	work(request);
end

local function read(request)
	if not requests[request] then return; end
	local root = request.read_on();
	if root == nil then return later(read, request); end
	local stanzas, wait = nil, "the body is not XML as XMPP has it";
	if root then stanzas, wait = check_root(root); end
	if not stanzas then return turn_away(request, 400, wait); end
	request.stanzas, request.timeout = stanzas, wait;
	examine(request);
end

local function handle_request(event)
	local headers, body = event.request.headers, event.request.body or "";
	if #body > MAX_BODY then return problem(413, "the body has more than "..MAX_BODY.." bytes"); end
	local unsigned = check_signature(headers, body);
	if unsigned then return unsigned; end
	if state.replays:get(replay_key(headers)) then
		return problem(401, "this request was replayed: a retry takes a new webhook-timestamp");
	end
	if not (headers.content_type or ""):lower():find("^application/xmpp%+xml%f[%s;\0]") then
		return problem(415, "the content type must be application/xmpp+xml");
	end
	if request_count >= MAX_REQUESTS then return problem(503, "too many requests in flight"); end
	if not utf8_valid(body) or body:find("\0", 1, true) then return problem(400, "the body is not UTF-8"); end
	-- What looks like markup counts as such, so that no body within its size limit can stall the event loop
	if has_too_many_marks(body) then return problem(400, "the body has too much markup"); end
	local key = remember_request(headers);
	if not key then return problem(503, "too many requests within "..REPLAY_MEMORY.." seconds"); end

	local request = {
		response = event.response; key = key; read_on = xml_reader(body); items = {}; next = 1; answers = {}; waiting = {}; planned = {};
	};
	requests[request], request_count = true, request_count + 1;
	event.response.on_destroy = function () close_request(request); end;
	read(request);
	return true;
end

module:provides("http", {
	name = "ping_muc";
	default_path = "/ping_muc";
	route = { ["POST /stanzas"] = handle_request };
});

-- Life of the module

function module.save()
	return state;
end

function module.restore(saved)
	if saved.version ~= state.version then return adopt_joins(); end
	state = saved;
	for full, track in pairs(state.tracks) do
		for room in pairs(track.rooms) do
			if not is_watched(jid.host(room)) then end_join(full, room); end
		end
	end
	if state.batch or state.queue:count() > 0 then schedule_flush(MERGE); end
end

function module.load()
	if not module.reloading then adopt_joins(); end
end

function module.unload()
	abort_flight();
	for request in pairs(requests) do respond(request, problem(503, "the module is being unloaded")); end
end
