-- mod_bench: what the benchmarks need inside the users' own server. For benchmarks only: it permits everything to all
-- who can reach it.
--
--   POST /bench/pings        the limit: a raw ping for each join, by as little code as can send it
--   POST /bench/watch        begins to watch the event loop
--   POST /bench/watched?from=…&to=…
--                            ends that, and returns what was seen between two moments, in seconds since the epoch
--   GET  /bench/use          processor time of the server so far, the joins it knows, how many s2s connections closed
--   GET  /bench/memory       what Lua holds after a full collection, in kB
--   GET  /bench/in_server    the last check of today's in-server way, which runs where bench_in_server is set
--
-- Today's in-server way follows the documentation of mod_ping_muc and mod_track_muc_joins: some seconds after an s2s
-- connection closed, each join on that host is pinged with the server's stock module:send_iq. Users who cannot be
-- confirmed are sent an unavailable presence with 110 and 330.

local jid = require "util.jid";
local json = require "util.json";
local new_id = require "util.id".medium;
local st = require "util.stanza";
local now = require "util.time".now;

local full_sessions = prosody.full_sessions;

local in_server = module:get_option_boolean("bench_in_server", false);
local delay = module:get_option_number("bench_delay", 1);
local timeout = module:get_option_number("bench_timeout", 60);

local WINDOW = 1000; -- pings in flight
local SLICE = 50; -- sent in one go
local TICK = 0.005; -- seconds between two looks at the event loop

module:depends("http");

-- Joins: full JID → room → nick

local joins = {};

module:hook("presence/full", function (event)
	local stanza, full = event.stanza, event.stanza.attr.to;
	local x = stanza:get_child("x", "http://jabber.org/protocol/muc#user");
	if not x or not full_sessions[full] then return; end
	local is_own = false;
	for status in x:childtags("status") do is_own = is_own or status.attr.code == "110"; end
	if not is_own then return; end
	local node, host, nick = jid.split(stanza.attr.from);
	local rooms = joins[full] or {};
	joins[full] = rooms;
	if stanza.attr.type == nil then
		rooms[jid.join(node, host)] = nick;
	elseif stanza.attr.type == "unavailable" then
		rooms[jid.join(node, host)] = nil;
	end
end, 2000);

module:hook("resource-unbind", function (event) joins[event.session.full_jid] = nil; end);

local function joins_on(remote)
	local list = {};
	for full, rooms in pairs(joins) do
		for room, nick in pairs(rooms) do
			if not remote or jid.host(room) == remote then table.insert(list, { full = full, occupant = room.."/"..nick }); end
		end
	end
	return list;
end

local template = st.stanza("iq", { type = "get" }):tag("ping", { xmlns = "urn:xmpp:ping" }):reset();

local function ping(join, id)
	local stanza = st.clone(template);
	stanza.attr.id, stanza.attr.from, stanza.attr.to = id, join.full, join.occupant;
	return stanza;
end

-- The limit

local pinging; -- { waiting = { id → occupant }, in_flight, results, next, list, done }

local function send_more()
	if not pinging then return; end
	local last = math.min(#pinging.list, pinging.next + math.min(SLICE, WINDOW - pinging.in_flight) - 1);
	for i = pinging.next, last do
		local id = new_id();
		pinging.waiting[id], pinging.in_flight = pinging.list[i].occupant, pinging.in_flight + 1;
		module:send(ping(pinging.list[i], id));
	end
	pinging.next = last + 1;
	if pinging.next <= #pinging.list and pinging.in_flight < WINDOW then module:add_timer(0.001, send_more); end
end

module:hook("iq/full", function (event)
	local attr = event.stanza.attr;
	if not pinging or pinging.waiting[attr.id] ~= attr.from then return; end
	pinging.waiting[attr.id], pinging.in_flight = nil, pinging.in_flight - 1;
	if attr.type == "result" then pinging.results = pinging.results + 1; end
	if pinging.next <= #pinging.list and pinging.in_flight <= WINDOW - SLICE then
		send_more();
	elseif pinging.in_flight == 0 and pinging.next > #pinging.list then
		pinging.done();
	end
	return true;
end, 2000);

-- The event loop

local watch;

local function look()
	if not watch then return; end
	local time, cpu = now(), os.clock();
	local late = math.max(0, time - watch.time - TICK) * 1000;
	table.insert(watch.looks, { at = time, late = late, own = (cpu - watch.cpu) * 1000 });
	watch.time, watch.cpu = time, cpu;
	return TICK;
end

-- Today's in-server way

local last_check;
local closes = 0;

local function tell(join)
	local session = full_sessions[join.full];
	if not session then return; end
	session.send(st.presence({ type = "unavailable", id = new_id(), from = join.occupant, to = join.full })
		:tag("x", { xmlns = "http://jabber.org/protocol/muc#user" })
			:tag("item", { affiliation = "none", role = "none" }):text_tag("reason", "Connection to remote server lost"):up()
			:tag("status", { code = "110" }):up():tag("status", { code = "330" }):up());
end

local JOINED = { ["service-unavailable"] = true, ["feature-not-implemented"] = true, ["item-not-found"] = true };

local function check(remote)
	local list = joins_on(remote);
	local this = last_check;
	this.checks, this.due = this.checks + 1, this.due or now();
	local function decided(join, is_joined)
		this.verdicts, this.last_verdict = this.verdicts + 1, now();
		if is_joined then return; end
		this.notices = this.notices + 1;
		tell(join);
	end
	for _, join in ipairs(list) do
		this.pings = this.pings + 1;
		module:send_iq(ping(join, new_id()), nil, timeout):next(function ()
			decided(join, true);
		end, function (problem)
			decided(join, JOINED[problem.condition]);
		end);
	end
end

local function closed(event)
	local session = event.session;
	local remote = session.direction == "outgoing" and session.to_host or session.from_host;
	if not remote or #joins_on(remote) == 0 then return; end
	if not last_check or last_check.checks == last_check.closes then
		last_check = { closes = 0, checks = 0, pings = 0, verdicts = 0, notices = 0 };
	end
	last_check.closes = last_check.closes + 1;
	module:add_timer(delay, function () check(remote); end);
end

local function count_close() closes = closes + 1; end
module:hook("s2sin-destroyed", count_close);
module:hook("s2sout-destroyed", count_close);

if in_server then
	module:hook("s2sin-destroyed", closed);
	module:hook("s2sout-destroyed", closed);
end

-- What is asked over HTTP

local function answer(value)
	return { status_code = 200, headers = { content_type = "application/json" }, body = json.encode(value) };
end

local function respond(response, value)
	response.headers.content_type = "application/json";
	response:send(json.encode(value));
end

module:provides("http", {
	name = "bench";
	default_path = "/bench";
	route = {
		["POST /pings"] = function (event)
			local began, list = now(), joins_on();
			pinging = { waiting = {}, in_flight = 0, results = 0, next = 1, list = list };
			function pinging.done()
				local results = pinging.results;
				pinging = nil;
				respond(event.response, { results = results, seconds = now() - began });
			end
			send_more();
			return true;
		end;
		["POST /watch"] = function ()
			watch = { looks = {}, time = now(), cpu = os.clock() };
			module:add_timer(TICK, look);
			return answer({});
		end;
		["POST /watched"] = function (event)
			local from, to = event.request.url.query:match("^from=([%d.]+)&to=([%d.]+)$");
			local late, own = {}, 0;
			for _, one in ipairs(watch.looks) do
				if one.at >= tonumber(from) and one.at <= tonumber(to) then
					table.insert(late, one.late);
					own = math.max(own, one.own);
				end
			end
			watch = nil;
			table.sort(late);
			return answer({
				own = own, median = late[math.ceil(#late / 2)], p99 = late[math.ceil(#late * 0.99)], longest = late[#late];
			});
		end;
		["GET /use"] = function ()
			local count = 0;
			for _, rooms in pairs(joins) do for _ in pairs(rooms) do count = count + 1; end end
			return answer({ cpu = os.clock(), joins = count, closes = closes });
		end;
		["GET /memory"] = function ()
			collectgarbage();
			collectgarbage();
			return answer({ held = collectgarbage("count") });
		end;
		["GET /in_server"] = function ()
			local done = last_check and last_check.checks == last_check.closes and last_check.verdicts == last_check.pings;
			return answer(done and {
				done = true;
				seconds = last_check.last_verdict - last_check.due;
			} or { done = false });
		end;
	};
});

-- A reload forgets what module:send_iq left behind: on 0.12 the two hooks of each ping that it gave up, for good

function module.save() return { joins = joins }; end
function module.restore(saved) joins = saved.joins; end
