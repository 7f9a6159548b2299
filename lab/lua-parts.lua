-- Runs parts of the module with a simulated clock, for tests that would take minutes or hours, or that depend on
-- fractions of a second. Usage: lua5.4 lua-parts.lua <the module's folder> <scenario>. Results are printed for the
-- test.

local folder, scenario = arg[1], arg[2];
package.path, package.cpath = "/usr/lib/prosody/?.lua;"..package.path, "/usr/lib/prosody/?.so;"..package.cpath;

local clock = assert(loadfile((arg[0]:match("^.*/") or "").."lua-clock.lua"))()(1795355000.25);
package.preload["util.time"] = function ()
	local function now() return clock.at; end
	return { now = now, monotonic = now };
end;

local hooks, metrics = {}, {};
local function nothing() end
prosody = { full_sessions = {}, hosts = {} };
module = setmetatable({ host = "example.net" }, { __index = function () return nothing; end });
function module:hook(name, handler) hooks[name] = handler; end
function module:measure() return nothing; end
function module:metric()
	return { with_labels = function (_, cause)
		return { add = function () metrics[cause] = (metrics[cause] or 0) + 1; end };
	end };
end
module.add_timer = clock.add_timer;
local function load(name) return assert(loadfile(folder.."/"..name..".lib.lua"))(); end
function module:require(name) return load(name); end -- luacheck: ignore 212/self

local pass = clock.pass;

local http = {};
package.preload["net.http"] = function () return http; end;

local st = require "util.stanza";
local scenarios = {};

local function message(room, id)
	return st.message({ type = "groupchat", from = room.."/Nurse", id = id }, "Madam!");
end

-- A session has received messages, misses others while it is out, and requests the history: counts the messages that it
-- receives again, and the missed ones that it does not receive. The room uses whole seconds of its own clock, as
-- Prosody does, and keeps `kept` messages.
function scenarios.history(_, kept, ...)
	local received, begin = { ... }, clock.at;
	local again, lost = 0, 0;
	for phase = 0, 0.95, 0.05 do
		local history = load "history"({ reenter = true }, {});
		local join, room, sent = {}, "room@muc.host", {};
		local function line(name, at)
			clock.at = begin + phase + at;
			table.insert(sent, { name = name, at = math.floor(clock.at - 0.1), missed = name:find("missed") ~= nil });
			return message(room, name);
		end
		history.begin(join);
		for i, at in ipairs(received) do history.heard(join, room, line("received "..i, tonumber(at)), false); end
		for i = 1, 3 do line("missed "..i, received[#received] + 5 * i); end
		clock.at = begin + phase + received[#received] + 60.3;
		local since = math.floor(clock.at + 0.1) - history.seconds(join);
		for i, one in ipairs(sent) do
			local comes = one.at >= since and i > #sent - tonumber(kept);
			local had = history.had(join, room, message(room, one.name)) ~= nil;
			if not one.missed and comes and not had then again = again + 1; end
			if one.missed and (not comes or had) then lost = lost + 1; end
		end
	end
	print(again, lost);
end

-- `hosts` times `rooms` joins, one in each room, of `users` users in turn, and the `doubts` part of the module, which
-- starts again with the kept state after a reload. `asked` has the number of requested checks for each room.
local function doubtful(hosts, rooms, users, settings)
	local world = { state = { tracks = {}, remotes = {} }; heard = {}; rooms = {}; asked = {}; count = 0 };
	local joins = {};
	for host = 1, hosts do
		local remote = "muc"..host;
		world.state.remotes[remote] = rooms;
		for n = 1, rooms do
			local room, full = ("room%d@%s"):format(n, remote), ("user%d@example.net/phone"):format(n % users);
			local track = world.state.tracks[full] or { rooms = {} };
			world.state.tracks[full], track.rooms[room] = track, { at = clock.at * 1e6, nick = "nick" };
			joins[room] = { [full] = track.rooms[room] };
			table.insert(world.rooms, { room = room, full = full });
		end
	end
	settings.timeout, settings.delay, settings.silence = 60, 60, settings.silence or 0;
	function world.begin()
		clock.stop_timers();
		hooks = {};
		world.doubts = load "doubts"(settings, world.state, { request = function (remote, asked)
			world.count = world.count + 1;
			if asked then world.asked[asked] = (world.asked[asked] or 0) + 1; end
			for room in pairs(asked and { [asked] = true } or joins) do
				if settings.on_ask and room:match("@(.*)$") == remote then
					settings.on_ask(world, room, select(2, next(joins[room])));
				end
			end
		end }, { joins_in = function (room) return joins[room]; end }, {
			heard = function (remote) return world.heard[remote]; end;
		});
	end
	-- All rooms answer a message with the error that the session is not in the room.
	function world.deny()
		pass(1);
		for _, one in ipairs(world.rooms) do
			local stanza = st.message({ type = "error", from = one.room, to = one.full }):tag("error", { type = "cancel" })
				:tag("not-acceptable", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }):reset();
			hooks["message/full"] { origin = { type = "s2sin" }; stanza = stanza };
		end
	end
	-- The number of joins that no check has pinged
	function world.left_out()
		local count = 0;
		for _, of_room in pairs(joins) do
			for _, join in pairs(of_room) do count = count + (join.pinged and 0 or 1); end
		end
		return count;
	end
	world.begin();
	return world;
end

-- How a room reacts to its check: it answers at once that the session is in, or is silent.
local reactions = {
	answers = function (world, room, join)
		join.pinged = clock.at + 1;
		module:add_timer(1, function () world.doubts.pings_finished({ [room] = true }, true); end);
	end;
	is_silent = function (world, room, join)
		join.pinged = clock.at + 1;
		module:add_timer(60, function () world.doubts.pings_finished({ [room] = true }, false); end);
	end;
};

-- All rooms send the error at once. Prints how many checks follow within a minute, within four hours, and in total, and
-- how many joins they leave out.
function scenarios.errors(_, hosts, rooms, users, how)
	local world = doubtful(tonumber(hosts), tonumber(rooms), tonumber(users), { on_ask = reactions[how] });
	world.deny();
	local found = {};
	for i, seconds in ipairs { 60, 4 * 3600, 100 * 3600 } do
		pass(seconds);
		found[i] = world.count;
	end
	for _, times in pairs(world.asked) do assert(times == 1); end
	print(table.concat(found, " "), world.left_out());
	pass(24 * 3600);
	print(next(world.state.check_allowances) == nil and "forgotten" or "kept");
end

-- The same with a reload after each minute: how many checks follow in the first quarter of an hour, and in total, and
-- how many joins they leave out.
function scenarios.reloads(_, rooms, how)
	local world = doubtful(1, tonumber(rooms), 1000, { on_ask = reactions[how] });
	world.deny();
	for _ = 1, 14 do
		pass(60);
		world.begin();
	end
	local first = world.count;
	pass(24 * 3600);
	print(first, world.count, world.left_out());
end

-- A host is silent in all of its rooms, and answers pings, or does not. Prints how many of its rooms are checked in
-- each interval.
function scenarios.silence(_, rooms, how)
	local silence, found = 21600, {};
	local world = doubtful(1, tonumber(rooms), 1000, { silence = silence, on_ask = function (world, room, join)
		if how == "answers" then
			module:add_timer(5, function () world.heard.muc1, join.heard = clock.at, clock.at; end);
		end
	end });
	pass(silence);
	for i = 1, 3 do
		local before = world.count;
		pass(silence);
		found[i] = world.count - before;
	end
	print(table.concat(found, " "));
end

local function rosters_of(settings)
	local at = 0;
	settings.reenter, settings.reenter_occupants = true, true;
	return load "rosters"(settings, { tracks = {} }, function () at = at + 1; return at; end);
end

-- Rooms that show a number of occupants to a user who enters: prints whether each has more than the limit.
function scenarios.larger(_, limit, ...)
	local rosters = rosters_of {};
	for n, count in ipairs { ... } do
		local room, asked = "room"..n.."@muc.host", clock.at;
		pass(1);
		for i = 1, tonumber(count) do rosters.see(room, "nick "..i, true); end
		rosters.keep(room, "juliet@example.net/phone", { nick = "nick 1", at = 0 });
		local before = rosters.is_larger(room, tonumber(limit));
		rosters.shown(room, asked);
		print(tostring(before), tostring(rosters.is_larger(room, tonumber(limit))));
	end
end

-- Lists of rooms with earlier re-entries take all the space: prints whether another room has space now, and half an
-- hour later.
function scenarios.snapshots()
	local rosters = rosters_of {};
	for n = 1, 50 do
		local room, join = "room"..n.."@muc.host", { nick = "nick 1", at = 0 };
		for i = 1, 2000 do rosters.see(room, "nick "..i, true); end
		rosters.keep(room, "juliet@example.net/phone", join);
		rosters.snapshot(room, join);
	end
	for n = 1, 2 do
		local room, asked = "another"..n.."@muc.host", clock.at;
		rosters.see(room, "nick", true);
		rosters.keep(room, "juliet@example.net/phone", { nick = "nick", at = 0 });
		rosters.shown(room, asked);
		print(tostring(rosters.is_larger(room, 1)));
		pass(1800);
	end
end

-- The sender, for `last` seconds, with what happens at a time: `event` (one more event waits), `down` and `up` (the
-- receiver), `reload`. Prints each request: when it was sent, its status, the number of its events and its queue.
function scenarios.heartbeats(_, interval, last, ...)
	local cache = require "util.cache";
	local json = require "util.json";
	local state = { queue = cache.new(2^31), renewals = cache.new(2^31), rest = {} };
	local settings = { webhook_url = "http://127.0.0.1/", heartbeat = tonumber(interval) };
	local begin, is_up, sender, ids = clock.at, true, nil, {};
	function http.request(_, options, done)
		local body, id = json.decode(options.body), options.headers["webhook-id"];
		assert(not ids[id] or ids[id] == options.body);
		ids[id] = options.body;
		local queue = body.queue and ("%d/%d"):format(body.queue.length, body.queue.oldest) or "-";
		local status = is_up and 200 or 0;
		print(("%d %d %d %s"):format(math.floor(clock.at - begin), status, #body.events, queue));
		if is_up then done('{"accepted":0,"rejected":[]}', 200, { headers = {} }); else done("refused", 0); end
		return {};
	end
	local events = 0;
	local steps = {};
	function steps.event()
		events = events + 1;
		sender.enqueue("muc.left", "key "..events, math.floor(clock.at * 1e6), { user = "user "..events });
	end
	function steps.down() is_up = false; end
	function steps.up() is_up = true; end
	function steps.reload()
		clock.stop_timers();
		sender = load "sender"(settings, state, load "outbox"(state), { sign = function () return {}; end });
		sender.resume();
	end
	steps.reload();
	for _, step in ipairs { ... } do
		local at, what = step:match("^(%d+):(%l+)$");
		pass(begin + at - clock.at);
		steps[what]();
	end
	pass(begin + last - clock.at);
end

-- Reads the settings, one of which has a value (a number, or another text): prints the field's value, or what is wrong.
function scenarios.setting(_, name, value, field)
	local options = {
		ping_muc_webhook_url = "http://127.0.0.1/"; ping_muc_secret = "whsec_"..("A"):rep(32);
		[name] = tonumber(value) or value;
	};
	function module:get_option(option, default) -- luacheck: ignore 212/self
		if options[option] == nil then return default; end
		return options[option];
	end
	local ok, result = pcall(load "settings".read);
	print(ok and tostring(result[field]) or result);
end

scenarios[scenario](select(2, ...));
