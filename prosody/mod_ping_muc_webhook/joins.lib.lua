-- Joins: which session of this host is in which room of a remote host

local cache = require "util.cache";
local jid = require "util.jid";
local st = require "util.stanza";
local time = require "util.time";

local monotonic, time_now = time.monotonic, time.now;

local resourceprep = require "util.encodings".stringprep.resourceprep;
local hosts, full_sessions = prosody.hosts, prosody.full_sessions;

local xmlns_delay = "urn:xmpp:delay";
local xmlns_disco = "http://jabber.org/protocol/disco#info";
local xmlns_muc = "http://jabber.org/protocol/muc";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";

local MAX_JOINS = 1000; -- of one session; beyond this joins are not tracked
local MAX_ASKS = 1000; -- rooms a session has asked to enter, all at once after a login, and not heard from; the oldest is forgotten
local RENEW_SLICES = 100; -- of an interval, in each of which its share of the joins is announced again
local MIN_SLICE, MAX_SLICE = 1, 60; -- seconds of one; the longer it is, the later a change of the interval is seen
local RENEW_AT_ONCE, RENEW_PAUSE = 1000, 0.1; -- joins announced in one go where all are; seconds until the next
local MAX_RENEWALS = 2000; -- that wait to be sent, the next batch and one more; the rest is not put in words yet
local ADOPT_IN_FLIGHT, ADOPT_WITHIN = 50, 60; -- queries to rooms that users were in before we were loaded; seconds

local measure_joins = module:measure("joins", "amount");

return function (settings, state, sender, queries, folds, closes, history, rosters, reentry, doubts, next_at)

	module:hook_global("stats-update", function () measure_joins(state.joins); end);

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
		local is_idle = track and track.count == 0 and track.asks:count() == 0 and not (track.holds and track.holds:count() > 0);
		if is_idle then state.tracks[full] = nil; end
	end

	local function is_watched(remote)
		return remote and not hosts[remote] and not settings.excluded[remote];
	end

	local function joined_fields(full, room, join)
		return { user = full, room = room, nick = join.nick };
	end

	local function record_join(full, room, nick)
		local track, key, remote = track_of(full), join_key(full, room), jid.host(room);
		local join = track.rooms[room];
		track.asks:set(room, nil);
		if not join then
			if track.count >= MAX_JOINS then
				if not track.warned then module:log("warn", "%s is in %d rooms, more are not watched", full, MAX_JOINS); end
				track.warned = true;
				return;
			end
			-- A leave that still waits is about to be replaced: the receiver knows an earlier join.
			join = { announced = state.queue:get(key) ~= nil or folds.has(key) };
			track.rooms[room], track.count = join, track.count + 1;
			state.remotes[remote], state.joins = (state.remotes[remote] or 0) + 1, state.joins + 1;
			rosters.keep(room, full, join);
			doubts.follow(room);
		end
		local earlier, old_nick = join.at and join.at / 1e6, join.nick;
		if not earlier or join.attempt then history.begin(join); end
		join.at, join.nick, join.attempt = next_at(), nick, nil;
		if old_nick and old_nick ~= nick then rosters.give_up(room, old_nick); end
		folds.tell("muc.joined", key, remote, join.at, joined_fields(full, room, join), join, earlier);
	end

	-- `by`: who has ended it, and knows: the "user", the "room", or a "notice". A notice ends it quietly: the receiver knows.
	local function end_join(full, room, by)
		local join = find_join(full, room);
		if not join then return; end
		local track, remote, key = state.tracks[full], jid.host(room), join_key(full, room);
		track.rooms[room], track.count = nil, track.count - 1;
		state.remotes[remote] = state.remotes[remote] > 1 and state.remotes[remote] - 1 or nil;
		state.joins = state.joins - 1;
		if not state.remotes[remote] then closes.forget(remote); end
		rosters.lose(room, full, join);
		doubts.follow(room);
		reentry.ended(full, room, join, by);
		drop_idle_track(full);
		if join.announced and by ~= "notice" then
			folds.tell("muc.left", key, remote, next_at(), { user = full, room = room }, nil, join.at / 1e6);
		else
			folds.drop(key);
			sender.forget(key);
		end
	end

	-- Late, so that what another module swallowed is not taken for asked.
	module:hook("pre-presence/full", function (event)
		local origin, stanza = event.origin, event.stanza;
		local full, node, remote, nick = origin.full_jid, jid.split(stanza.attr.to);
		-- The broadcast presence also goes to whoever probes; it asks for nothing.
		if stanza.attr.type ~= nil or rawequal(stanza, origin.presence) or reentry.is_ours(stanza) then return; end
		if not full or not is_watched(remote) then return; end
		local room, is_entry = jid.join(node, remote), stanza:get_child("x", xmlns_muc) ~= nil;
		local join, track = find_join(full, room), state.tracks[full];
		if join and (is_entry or nick ~= join.nick) then reentry.withdraw(join); end
		if is_entry and track then reentry.user_enters(track, room); end
		if join and is_entry then join.attempt = time_now(); end
		if not join or join.attempt then track_of(full).asks:set(room, monotonic()); end
	end, -1000);

	local function leave(event)
		local full = event.origin.full_jid;
		if event.stanza.attr.type ~= "unavailable" or not full or not state.tracks[full] then return; end
		local room = jid.bare(event.stanza.attr.to);
		state.tracks[full].asks:set(room, nil);
		if not reentry.is_ours(event.stanza) then end_join(full, room, "user"); end
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

	-- A room sends its messages, and its occupants' presence, to none but those who are in it. What was delayed it may
	-- have sent before a stream broke.
	local function is_genuine(origin)
		return (origin.type == "s2sin" or origin.type == "s2sout") and not origin.dummy;
	end

	local function prove(join, origin, stanza)
		if not is_genuine(origin) then return; end
		local began = closes.began(origin) or 0;
		if began > (join.proof or 0) and not stanza:get_child("delay", xmlns_delay) then join.proof = began; end
	end

	-- Before anybody swallows it
	module:hook("message/full", function (event)
		local attr = event.stanza.attr;
		local track = attr.type == "groupchat" and state.tracks[attr.to];
		if not track then return; end
		local room = jid.bare(attr.from);
		local join = track.rooms[room];
		if reentry.holds_message(track, room) then return true; end
		if not join then return; end
		prove(join, event.origin, event.stanza);
		return reentry.takes_message(attr.to, room, join, event.stanza) or nil;
	end, 1000);

	module:hook("presence/full", function (event)
		local stanza, full = event.stanza, event.stanza.attr.to;
		local track = state.tracks[full];
		local node, remote, nick = jid.split(stanza.attr.from);
		if not track or not node or not is_watched(remote) then return; end
		local room = jid.join(node, remote);
		local join, asked = track.rooms[room], track.asks:get(room);
		if not join and not asked and not track.holds then return; end

		local statuses, x = {}, stanza:get_child("x", xmlns_muc_user);
		for status in (x or stanza):childtags("status", xmlns_muc_user) do statuses[status.attr.code or ""] = true; end

		local presence_type, is_self = stanza.attr.type, statuses["110"] == true;
		local is_occupant = presence_type == nil and nick and x;
		local is_goodbye = presence_type == "unavailable" and nick and (not is_self or statuses["303"]);
		if (join or asked) and (is_occupant or is_goodbye) then rosters.see(room, nick, is_occupant); end
		if reentry.holds_presence(track, room, nick, stanza, is_self) then
			drop_idle_track(full);
			return true;
		end
		-- What nobody asked for: the session has something held back, from this room or another.
		if not join and not asked then return drop_idle_track(full); end

		-- To one who is entering again a room sends the others' presence before it has said that it lets it in.
		if join and is_occupant and not join.attempt and not reentry.is_awaited(join) then prove(join, event.origin, stanza); end
		if presence_type == "error" then
			if join and reentry.takes_error(join, stanza, is_genuine(event.origin)) then return true; end
			track.asks:set(room, nil);
			if join and join.attempt then end_join(full, room, "room"); end
			drop_idle_track(full);
		elseif presence_type == nil and nick and is_self then
			if join and statuses["201"] and reentry.takes_new_room(full, room, join) then return true; end
			if not join or join.attempt or join.nick ~= nick or reentry.is_awaited(join) then record_join(full, room, nick); end
			join = find_join(full, room);
			if not join then return; end
			prove(join, event.origin, stanza);
			if asked then rosters.shown(room, asked); end
			reentry.entered(full, room, join);
		elseif is_occupant and join then
			reentry.announced(join, nick);
		elseif presence_type == "unavailable" and join and (is_self or nick == join.nick) then
			if not statuses["303"] then return end_join(full, room, "room"); end
			-- Taken from here already: not every service marks the new nick's presence with 110. One that does has the last word.
			local item = x:get_child("item");
			local new_nick = item and item.attr.nick and resourceprep(item.attr.nick);
			if new_nick and new_nick ~= "" and new_nick ~= join.nick then record_join(full, room, new_nick); end
		end
	end, 1000);

	local function renew(full, room, join)
		sender.renew(join_key(full, room), join.at, { user = full, room = room, nick = join.nick });
	end

	-- A join's place in the interval, from 0 to 1. Multiples of the golden ratio's fraction lie evenly, however close to
	-- each other the joins were made.
	local function place_of(join)
		return join.at % 1e6 * 0.6180339887498949 % 1;
	end

	-- Renews the joins whose places have been passed since the last time: each is, once an interval, and few at a time.
	-- Kept over a reload, as otherwise frequent ones would put them off for ever.
	state.renewed = state.renewed or { at = monotonic(), place = 0 };
	local function renew_slice()
		local now, from = monotonic(), state.renewed.place;
		local share = math.min((now - state.renewed.at) / settings.refresh, 1);
		for full, track in pairs(state.tracks) do
			for room, join in pairs(track.rooms) do
				if (place_of(join) - from) % 1 < share then renew(full, room, join); end
			end
		end
		state.renewed = { at = now, place = (from + share) % 1 };
		return math.max(MIN_SLICE, math.min(settings.refresh / RENEW_SLICES, MAX_SLICE));
	end
	local renewals = module:add_timer(MIN_SLICE, renew_slice);

	-- The interval may be another than before.
	local function follow_refresh()
		renewals:stop();
		renewals = module:add_timer(MIN_SLICE, renew_slice);
	end

	-- What is left of all joins that are to be announced anew; it goes on after a reload.
	local function renew_unrenewed()
		local unrenewed = state.unrenewed;
		for _ = 1, math.min(#unrenewed, RENEW_AT_ONCE, math.max(0, MAX_RENEWALS - state.renewals:count())) do
			local item = table.remove(unrenewed);
			local join = find_join(item.full, item.room);
			if join then renew(item.full, item.room, join); end
		end
		if unrenewed[1] then return RENEW_PAUSE; end
		state.unrenewed = nil;
	end
	if state.unrenewed then module:add_timer(RENEW_PAUSE, renew_unrenewed); end

	-- Announces all joins, as fast as the receiver takes them: it may know none of them.
	local function renew_all()
		local is_under_way = state.unrenewed ~= nil;
		state.unrenewed = {};
		for full, track in pairs(state.tracks) do
			for room in pairs(track.rooms) do table.insert(state.unrenewed, { full = full, room = room }); end
		end
		if not is_under_way then module:add_timer(0, renew_unrenewed); end
	end
	sender.on_new_receiver(renew_all);

	-- Joins that are older than this module: mod_presence knows to whom a session sent directed presence, the room knows
	-- whether it is one, and whether the session is in it. `is_new` says of which hosts only; nil: of all.
	local function adopt_joins(is_new)
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
				if not queries.forget(id) then return; end
				finish();
			end);
			id = queries.send(from, to, template, finish);
		end

		local function is_still_there(candidate)
			local session, join = full_sessions[candidate.full], find_join(candidate.full, candidate.room);
			return not join and session and session.directed and session.directed[candidate.occupant];
		end

		local function verify(candidate)
			if not is_still_there(candidate) then return; end
			query(candidate.full, candidate.occupant, queries.ping, function (answer, genuine)
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
			query(asker.full, asker.room, queries.disco, function (answer, genuine)
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
					if node and nick and is_watched(remote) and (not is_new or is_new(remote)) and not find_join(session.full_jid, room) then
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

	-- Ends the joins of which this does not hold.
	local function keep_only(is_kept)
		for full, track in pairs(state.tracks) do
			for room in pairs(track.rooms) do
				if not is_kept(full, room) then end_join(full, room); end
			end
		end
	end

	local function drop_unwatched()
		keep_only(function (_, room) return is_watched(jid.host(room)); end);
	end

	-- While nobody looked, sessions may have ended, and users may have left their rooms.
	local function drop_ended()
		keep_only(function (full, room)
			local session = full_sessions[full];
			if not session or not is_watched(jid.host(room)) then return false; end
			for occupant in pairs(session.directed or {}) do
				if jid.bare(occupant) == room then return true; end
			end
			return false;
		end);
	end

	return {
		next_at = next_at, find = find_join, finish = end_join, heard = closes.heard, renew_all = renew_all;
		follow_refresh = follow_refresh;
		adopt = adopt_joins, drop_unwatched = drop_unwatched, drop_ended = drop_ended;
	};
end
