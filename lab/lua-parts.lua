-- Plays parts of the module with a clock of its own, for what takes minutes or hours, or hangs on fractions of a second.
-- Usage: lua5.4 lua-parts.lua <the module's folder> <what to play>. What is found is printed, for the test to look at.

local folder, what = arg[1], arg[2];
package.path, package.cpath = "/usr/lib/prosody/?.lua;"..package.path, "/usr/lib/prosody/?.so;"..package.cpath;

local clock = 1795355000.25;
package.preload["util.time"] = function ()
	local function now() return clock; end
	return { now = now, monotonic = now };
end;

local hooks, timers, metrics = {}, {}, {};
local function nothing() end
prosody = { full_sessions = {}, hosts = {} };
module = setmetatable({ host = "example.net" }, { __index = function () return nothing; end });
function module:hook(name, handler) hooks[name] = handler; end
function module:measure() return nothing; end
function module:metric()
	return { with_labels = function (_, cause) return { add = function () metrics[cause] = (metrics[cause] or 0) + 1; end }; end };
end
function module:add_timer(after, call)
	local timer = { at = clock + after; call = call };
	timers[timer] = true;
	function timer:stop() timers[self] = nil; end
	return timer;
end
local function load(name) return assert(loadfile(folder.."/"..name..".lib.lua"))(); end

-- Lets time pass.
local function pass(seconds)
	local stop = clock + seconds;
	while true do
		local first;
		for timer in pairs(timers) do
			if timer.at <= stop and (not first or timer.at < first.at) then first = timer; end
		end
		if not first then break; end
		timers[first] = nil;
		clock = math.max(clock, first.at);
		local again = first.call();
		if type(again) == "number" then module:add_timer(again, first.call); end
	end
	clock = stop;
end

local st = require "util.stanza";
local plays = {};

-- A session heard lines, is out for a while in which others are said, and asks for the history: which lines come that it had, and
-- which do not that it missed. The room takes whole seconds of its own clock, as Prosody's does, and keeps `kept` lines.
function plays.history(_, kept, ...)
	local heard, begin = { ... }, clock;
	local again, lost = 0, 0;
	for phase = 0, 0.95, 0.05 do
		local history = load "history"({ reenter = true }, {});
		local join, room, said = {}, "room@muc.host", {};
		local function line(name, at)
			clock = begin + phase + at;
			table.insert(said, { name = name, at = math.floor(clock - 0.1), missed = name:find("missed") ~= nil });
			return st.message({ type = "groupchat", from = room.."/Nurse", id = name }, "Madam!");
		end
		history.begin(join);
		for i, at in ipairs(heard) do history.heard(join, room, line("heard "..i, tonumber(at)), false); end
		for i = 1, 3 do line("missed "..i, heard[#heard] + 5 * i); end
		clock = begin + phase + heard[#heard] + 60.3;
		local since = math.floor(clock + 0.1) - history.seconds(join);
		for i, one in ipairs(said) do
			local comes = one.at >= since and i > #said - tonumber(kept);
			local had = history.had(join, room, st.message({ type = "groupchat", from = room.."/Nurse", id = one.name }, "Madam!")) ~= nil;
			if not one.missed and comes and not had then again = again + 1; end
			if one.missed and (not comes or had) then lost = lost + 1; end
		end
	end
	print(again, lost);
end

-- What the module asks of a host with joins, one in each room: `hosts` times `rooms` of them, of `users` users in turn. `doubts`
-- begins, and after a reload begins anew, with what has been kept. `asked` are the rooms that checks were asked for, each as often.
local function doubtful(hosts, rooms, users, settings)
	local scene = { state = { tracks = {}, remotes = {} }; heard = {}; rooms = {}; asked = {}; count = 0 };
	local joins = {};
	for host = 1, hosts do
		local remote = "muc"..host;
		scene.state.remotes[remote] = rooms;
		for n = 1, rooms do
			local room, full = ("room%d@%s"):format(n, remote), ("user%d@example.net/phone"):format(n % users);
			local track = scene.state.tracks[full] or { rooms = {} };
			scene.state.tracks[full], track.rooms[room] = track, { at = clock * 1e6, nick = "nick" };
			joins[room] = { [full] = track.rooms[room] };
			table.insert(scene.rooms, { room = room, full = full });
		end
	end
	settings.timeout, settings.delay, settings.silence = 60, 60, settings.silence or 0;
	function scene.begin()
		timers, hooks = {}, {};
		scene.doubts = load "doubts"(settings, scene.state, { enqueue = function (_, room)
			scene.count, scene.asked[room] = scene.count + 1, (scene.asked[room] or 0) + 1;
			if settings.on_ask then settings.on_ask(scene, room, select(2, next(joins[room]))); end
		end }, { joins_in = function (room) return joins[room]; end }, { heard = function (remote) return scene.heard[remote]; end }, nothing);
	end
	-- All rooms answer something that was sent to them: nobody there is in.
	function scene.deny()
		pass(1);
		for _, one in ipairs(scene.rooms) do
			local stanza = st.message({ type = "error", from = one.room, to = one.full }):tag("error", { type = "cancel" })
				:tag("not-acceptable", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }):reset();
			hooks["message/full"] { origin = { type = "s2sin" }; stanza = stanza };
		end
	end
	scene.begin();
	return scene;
end

-- How a room takes its check: it answers at once (and says that the session is in), or is silent.
local takes = {
	answers = function (scene, room, join)
		join.pinged = clock + 1;
		module:add_timer(1, function () scene.doubts.asked({ [room] = true }, true); end);
	end;
	is_silent = function (scene, room, join)
		join.pinged = clock + 1;
		module:add_timer(60, function () scene.doubts.asked({ [room] = true }, false); end);
	end;
};

-- All rooms deny at once. How many are checked within a minute, within four hours, and in the end.
function plays.errors(_, hosts, rooms, users, how)
	local scene = doubtful(tonumber(hosts), tonumber(rooms), tonumber(users), { on_ask = takes[how] });
	scene.deny();
	local found = {};
	for i, seconds in ipairs { 60, 4 * 3600, 100 * 3600 } do
		pass(seconds);
		found[i] = scene.count;
	end
	for _, times in pairs(scene.asked) do assert(times == 1); end
	print(table.concat(found, " "));
	pass(24 * 3600);
	print(next(scene.state.allowances) == nil and "forgotten" or "kept");
end

-- The same with a reload after each minute: how many are checked in the first quarter of an hour, and in the end.
function plays.reloads(_, rooms, how)
	local scene = doubtful(1, tonumber(rooms), 1000, { on_ask = takes[how] });
	scene.deny();
	for _ = 1, 14 do
		pass(60);
		scene.begin();
	end
	local first = scene.count;
	pass(24 * 3600);
	print(first, scene.count);
end

-- A host is silent in all of its rooms, and what it is asked: is heard from it, or not. How many of its rooms are asked about in each
-- interval.
function plays.silence(_, rooms, how)
	local silence, found = 21600, {};
	local scene = doubtful(1, tonumber(rooms), 1000, { silence = silence, on_ask = function (scene, room, join)
		if how == "answers" then
			module:add_timer(5, function () scene.heard.muc1, join.heard = clock, clock; end);
		end
	end });
	pass(silence);
	for i = 1, 3 do
		local before = scene.count;
		pass(silence);
		found[i] = scene.count - before;
	end
	print(table.concat(found, " "));
end

local function rosters_of(settings)
	local at = 0;
	settings.reenter, settings.reenter_occupants = true, true;
	return load "rosters"(settings, { tracks = {} }, function () at = at + 1; return at; end);
end

-- Rooms that show so many occupants to one who enters; whether each has more than the limit.
function plays.larger(_, limit, ...)
	local rosters = rosters_of {};
	for n, count in ipairs { ... } do
		local room, asked = "room"..n.."@muc.host", clock;
		pass(1);
		for i = 1, tonumber(count) do rosters.see(room, "nick "..i, true); end
		rosters.keep(room, "juliet@example.net/phone", { nick = "nick 1", at = 0 });
		local before = rosters.is_larger(room, tonumber(limit));
		rosters.shown(room, asked);
		print(tostring(before), tostring(rosters.is_larger(room, tonumber(limit))));
	end
end

-- All that may be kept is taken by rooms that were once entered again: whether another has room now, and after half an hour.
function plays.snapshots()
	local rosters = rosters_of {};
	for n = 1, 50 do
		local room, join = "room"..n.."@muc.host", { nick = "nick 1", at = 0 };
		for i = 1, 2000 do rosters.see(room, "nick "..i, true); end
		rosters.keep(room, "juliet@example.net/phone", join);
		rosters.snapshot(room, join);
	end
	for n = 1, 2 do
		local room, asked = "another"..n.."@muc.host", clock;
		rosters.see(room, "nick", true);
		rosters.keep(room, "juliet@example.net/phone", { nick = "nick", at = 0 });
		rosters.shown(room, asked);
		print(tostring(rosters.is_larger(room, 1)));
		pass(1800);
	end
end

plays[what](select(2, ...));
