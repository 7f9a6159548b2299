-- Joins: which session of this host is in which room of a remote host. What makes, renames and ends a join (rule 1 in
-- docs/rules.md): tracking.lib.lua

local cache = require "util.cache";
local jid = require "util.jid";
local time_now = require "util.time".now;

local hosts, full_sessions = prosody.hosts, prosody.full_sessions;

local MAX_JOINS = 1000; -- of one session; more are not tracked
-- Rooms that a session has asked to enter, all at once after a login, and that have not answered yet. The oldest are
-- dropped.
local MAX_ASKS = 1000;

local measure_joins = module:measure("joins", "amount");

return function (settings, state, sender, folds, closes, history, rosters, reentry, doubts, next_at)

	module:hook_global("stats-update", function () measure_joins(state.joins); end);

	local function key_of(full, room)
		return room.."\0"..full;
	end

	local function find(full, room)
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
		if not track or track.count > 0 or track.asks:count() > 0 then return; end
		if track.holds and track.holds:count() > 0 then return; end
		state.tracks[full] = nil;
	end

	local function is_watched(remote)
		return remote and not hosts[remote] and not settings.excluded[remote];
	end

	local function fields_of(full, room, join)
		return { user = full, room = room, nick = join.nick };
	end

	-- A new join, which has no moment and no nick yet; nil if the session is in too many rooms
	local function add_join(full, room, track)
		if track.count >= MAX_JOINS then
			if not track.warned then module:log("warn", "%s is in %d rooms, more are not watched", full, MAX_JOINS); end
			track.warned = true;
			return;
		end
		local key, remote = key_of(full, room), jid.host(room);
		-- If a leave is waiting, the new event replaces it: the receiver knows an earlier join.
		local join = { announced = state.queue:get(key) ~= nil or folds.has(key) };
		track.rooms[room], track.count = join, track.count + 1;
		state.remotes[remote], state.joins = (state.remotes[remote] or 0) + 1, state.joins + 1;
		rosters.keep(room, full, join);
		doubts.follow(room);
		return join;
	end

	-- The room has confirmed a session under a nick: a new join, or one that takes the place of an earlier one.
	local function record(full, room, nick)
		local track = track_of(full);
		track.asks:set(room, nil);
		local join = track.rooms[room] or add_join(full, room, track);
		if not join then return; end
		local earlier, old_nick = join.at and join.at / 1e6, join.nick;
		if not earlier or join.attempt then history.begin(join); end
		join.at, join.nick, join.attempt = next_at(), nick, nil;
		if old_nick and old_nick ~= nick then rosters.give_up(room, old_nick); end
		folds.report("muc.joined", key_of(full, room), jid.host(room), join.at, fields_of(full, room, join), join, earlier);
	end

	-- `by`: who ended it, and so knows of the end: the "user", the "room" or a "notice"; nil for any other reason. The end
	-- by a notice is not reported: the receiver has requested it.
	local function finish(full, room, by)
		local join = find(full, room);
		if not join then return; end
		local track, remote, key = state.tracks[full], jid.host(room), key_of(full, room);
		track.rooms[room], track.count = nil, track.count - 1;
		state.remotes[remote] = state.remotes[remote] > 1 and state.remotes[remote] - 1 or nil;
		state.joins = state.joins - 1;
		if not state.remotes[remote] then closes.drop(remote); end
		rosters.lose(room, full, join);
		doubts.follow(room);
		reentry.ended(full, room, join, by);
		drop_idle_track(full);
		if join.announced and by ~= "notice" then
			folds.report("muc.left", key, remote, next_at(), { user = full, room = room }, nil, join.at / 1e6);
		else
			folds.drop(key);
			sender.drop(key);
		end
	end

	-- Whether the session itself is entering again. The room may be about to admit it, so that a notice now would be
	-- wrong. An attempt without an answer ends with its time-out. A ping that was sent after the attempt is newer than
	-- it.
	local function is_entering(join)
		local attempt = join.attempt;
		return attempt and (time_now() - attempt < settings.timeout or attempt > (join.pinged or 0));
	end

	-- Reports a join again, which the receiver knows, unless something newer waits.
	local function renew(full, room, join)
		sender.renew(key_of(full, room), join.at, fields_of(full, room, join));
	end

	-- Ends the other joins.
	local function keep_only(is_kept)
		for full, track in pairs(state.tracks) do
			for room in pairs(track.rooms) do
				if not is_kept(full, room) then finish(full, room); end
			end
		end
	end

	local function drop_unwatched()
		keep_only(function (_, room) return is_watched(jid.host(room)); end);
	end

	-- While the module was not loaded, sessions may have ended, and users may have left their rooms.
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
		find = find, record = record, finish = finish, renew = renew, is_entering = is_entering, is_watched = is_watched;
		track_of = track_of, drop_idle_track = drop_idle_track;
		drop_unwatched = drop_unwatched, drop_ended = drop_ended;
	};
end
