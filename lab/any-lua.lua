-- Runs the module's main job on any version of Lua. Prosody's parts in C are replaced by simple stand-ins: Prosody
-- supports all versions, but Debian builds these parts for one only. Usage: lua any-lua.lua <the module's folder>
--
-- A user enters a room, a stream closes, and the receiver sends a ping, a re-entry and a notice. Everything that leaves
-- the module or reaches the client is printed for the test.

local folder = arg[1];
package.path = "/usr/lib/prosody/?.lua;"..package.path;

local function stand_in(name, value) package.preload[name] = function () return value; end; end

local clock = assert(loadfile((arg[0]:match("^.*/") or "").."lua-clock.lua"))()(1795355000.123456);
local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
local function same(text) return text; end
local base64 = {};
function base64.encode(text)
	local bits = text:gsub(".", function (char)
		local byte, out = char:byte(), "";
		for i = 7, 0, -1 do out = out..math.floor(byte / 2 ^ i) % 2; end
		return out;
	end);
	bits = bits..("0"):rep(-#bits % 6);
	local out = bits:gsub("%d%d%d%d%d%d", function (six)
		local n = tonumber(six, 2) + 1;
		return digits:sub(n, n);
	end);
	return out..("="):rep(-#out % 4);
end
function base64.decode(text)
	local bits = text:gsub("=", ""):gsub(".", function (char)
		local n, out = digits:find(char, 1, true) - 1, "";
		for i = 5, 0, -1 do out = out..math.floor(n / 2 ^ i) % 2; end
		return out;
	end);
	local whole = bits:sub(1, #bits - #bits % 8);
	return (whole:gsub("%d%d%d%d%d%d%d%d", function (eight) return string.char(tonumber(eight, 2)); end));
end
stand_in("util.encodings", {
	base64 = base64; utf8 = { valid = function () return true; end };
	stringprep = { nameprep = string.lower; nodeprep = string.lower; resourceprep = same };
});
stand_in("util.hashes", {
	hmac_sha256 = function (key, text) return ("%d %s"):format(#key, text):sub(1, 60); end;
	equals = function (a, b) return a == b; end;
});
local taken = 0;
stand_in("util.random", {
	bytes = function (n) taken = taken + 1; return (("%016d"):format(taken)):rep(2):sub(-n); end;
});
local function tick() clock.at = clock.at + 1e-6; return clock.at; end
stand_in("util.time", { now = tick, monotonic = tick });
stand_in("util.table", {
	pack = function (...) return { n = select("#", ...); ... }; end;
	create = function () return {}; end;
});
local posted = {};
stand_in("net.http", {
	request = function (_, options, done)
		table.insert(posted, options.body);
		done('{"accepted":1,"rejected":[]}', 200, { headers = {} });
		return {};
	end;
});

local new_events = require "util.events".new;
local host_events, global_events = new_events(), new_events();
local session = { full_jid = "juliet@example.net/phone", username = "juliet", host = "example.net", type = "c2s" };
function session.send(stanza) print("client", tostring(stanza)); return true; end
session.log = function () end;
session.thread = {};
function session.thread:run(stanza) -- luacheck: ignore 212/self
	print("session", tostring(stanza));
	host_events.fire_event("pre-presence/full", { origin = session, stanza = stanza });
	session.entered = stanza.attr.id;
end
prosody = {
	hosts = {
		["example.net"] = {
			sessions = { juliet = { sessions = { phone = session } } }, s2sout = {}, modules = {}, events = host_events,
		};
	};
	full_sessions = { [session.full_jid] = session }; bare_sessions = {}; incoming_s2s = {}; events = global_events;
};

-- The API that Prosody gives a module. All other functions do nothing.
local options = {
	ping_muc_reenter = true; ping_muc_webhook_url = "http://127.0.0.1/webhooks";
	ping_muc_secret = "whsec_"..base64.encode(("k"):rep(32)):gsub("=", "");
};
local shared, routes, sent = {}, nil, {};
local function nothing() end
local api = { host = "example.net"; name = "ping_muc_webhook"; reloading = false };
function api:measure() return nothing; end
function api:metric() return { with_labels = function () return { add = nothing }; end }; end
function api:hook(event, handler, priority) host_events.add_handler(event, handler, priority); end
function api:hook_global(event, handler, priority) global_events.add_handler(event, handler, priority); end
function api:get_option(name, default) if options[name] == nil then return default; end return options[name]; end
function api:shared(name) shared[name] = shared[name] or {}; return shared[name]; end
function api:log(level, text, ...) if level == "error" then print("log", text:format(...)); end end
function api:provides(_, what) for _, handler in pairs(what.route or {}) do routes = handler; end end
function api:send(stanza) table.insert(sent, stanza); end
function api:require(name) return assert(loadfile(folder.."/"..name..".lib.lua"))(); end
api.add_timer = clock.add_timer;
module = setmetatable(api, { __index = function () return nothing; end });

local pass = clock.pass;

local st = require "util.stanza";
assert(loadfile(folder.."/mod_ping_muc_webhook.lua"))();
module.load();

local stream = {
	type = "s2sin"; direction = "incoming"; to_host = "example.net"; from_host = "muc.host";
	hosts = { ["muc.host"] = { authed = true } };
};
-- A stanza that the module does not hold back reaches the client.
local function arrive(name, stanza)
	if not host_events.fire_event(name, { origin = stream, stanza = stanza }) then
		print("arrived", stanza.attr.from, stanza.name);
	end
end
global_events.fire_event("s2sin-established", { session = stream });
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";
local room, occupant = "room@muc.host", "room@muc.host/Juliet";
local function is_in(id, nick)
	local presence = st.presence({ id = id, from = room.."/"..nick, to = session.full_jid })
		:tag("x", { xmlns = xmlns_muc_user });
	if nick == "Juliet" then presence:tag("status", { xmlns = xmlns_muc_user, code = "110" }); end
	arrive("presence/full", presence:reset());
end
local function send_message(body, stamp)
	local message = st.message({ type = "groupchat", id = body, from = occupant, to = session.full_jid }, body);
	if stamp then message:tag("delay", { xmlns = "urn:xmpp:delay", stamp = stamp }); end
	arrive("message/full", message:reset());
end
host_events.fire_event("pre-presence/full", {
	origin = session, stanza = st.presence({ to = occupant, from = session.full_jid });
});
is_in(nil, "Romeo");
is_in(nil, "Juliet");
send_message("Before all time", "1969-12-31T23:59:59Z"); -- os.time of that raises an error on Lua 5.3 and 5.4
send_message("Ay me");
global_events.fire_event("s2s-destroyed", { session = stream, reason = "closed" });
pass(1);
for _, body in ipairs(posted) do print("webhook", body); end

local function serve(id, xml)
	local timestamp, reply = ("%d"):format(os.time()), nil;
	local signed = id.."."..timestamp.."."..xml;
	local request = { body = xml; headers = {
		content_type = "application/xmpp+xml"; webhook_id = id; webhook_timestamp = timestamp;
		webhook_signature = "v1,"..base64.encode(require "util.hashes".hmac_sha256(("k"):rep(32), signed));
	} };
	local response = { headers = {} };
	function response:send(body) reply = body; end
	local answer = routes({ request = request; response = response });
	if type(answer) == "table" then return print("answer", answer.status_code, answer.body); end
	pass(0.1);
	for _, query in ipairs(sent) do
		print("query", query.attr.type, query.attr.from, query.attr.to, query.tags[1].attr.xmlns);
		arrive("iq/full", st.iq({ type = "result", id = query.attr.id, from = query.attr.to, to = query.attr.from }));
	end
	sent = {};
	if session.entered then
		is_in(session.entered, "Juliet");
		session.entered = nil;
		send_message("Ay me", "2026-11-25T00:00:00Z");
		send_message("Deny thy father", "2026-11-25T00:00:00Z");
		arrive("message/full", st.message({ type = "groupchat", from = room, to = session.full_jid }):tag("subject"):reset());
	end
	pass(1);
	print("answer", 200, reply);
end
local function join_in(text)
	return ("<join xmlns='urn:ping-muc:0' at='%s'/>"):format(text:match('"muc.joined","at":(%d+)') or "0");
end
local join = join_in(table.concat(posted));
serve("msg_1", ("<xmpp timeout='60'><iq type='get' id='p' from='%s' to='%s'>"
	.."<ping xmlns='urn:xmpp:ping'/>%s</iq></xmpp>")
	:format(session.full_jid, occupant, join));
serve("msg_2", ("<xmpp timeout='60'><iq type='get' id='d' from='%s' to='%s'>"
	.."<query xmlns='http://jabber.org/protocol/disco#info'/></iq></xmpp>")
	:format(session.full_jid, room));
serve("msg_3", ("<xmpp timeout='60'><presence id='r' from='%s' to='%s'><x xmlns='http://jabber.org/protocol/muc'/>%s"
	.."</presence></xmpp>")
	:format(session.full_jid, occupant, join));
pass(1);
join = join_in(posted[#posted]);
serve("msg_4", ("<xmpp timeout='60'><presence type='unavailable' id='n' from='%s' to='%s'>"
	.."<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='none'><reason>Lost</reason></item>"
	.."<status code='110'/><status code='330'/><status code='333'/></x>%s</presence></xmpp>")
	:format(occupant, session.full_jid, join));
pass(301);
print("heartbeat", posted[#posted]);
