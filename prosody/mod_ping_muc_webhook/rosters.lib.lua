-- Rosters: the occupants of rooms, so that a client whose session is brought back learns who has left meanwhile
--
-- One for each room, from the presence that the room sends to any session of this host.

local jid = require "util.jid";
local st = require "util.stanza";

local monotonic = require "util.time".monotonic;
local full_sessions = prosody.full_sessions;

local xmlns_muc_user = "http://jabber.org/protocol/muc#user";

local MAX_NICKS, MAX_ALL_NICKS = 2000, 200000; -- of a room, and of all rooms, that are stored
local SNAPSHOT_FOR = 900; -- seconds for which the occupants before the first re-entry are stored
local SWEEP = 600; -- seconds after which a room is dropped that admitted no session

return function (settings, state, next_at)
	-- Room → { nicks, count, made, whole, refused, before, since, spared }. `whole`: the room has shown all its
	-- occupants to one of our sessions; `refused`: when one of them was not stored, because there were too many.
	-- `before`: the occupants that clients knew when the room was first entered again; `since`: those that the room has
	-- shown since then, until it has shown all to one of our sessions. `spared`: nick → full JIDs that have not been
	-- informed yet that it is gone.
	state.rosters = state.rosters or {};
	local rosters, total = state.rosters, 0;
	local listening; -- since when all occupants are stored that rooms show; nil if they are not
	local locals = {}; -- room → full JID → join, of this host's sessions

	for full, track in pairs(state.tracks) do
		for room, join in pairs(track.rooms) do
			locals[room] = locals[room] or {};
			locals[room][full] = join;
		end
	end
	local function weigh(roster)
		return roster.count + (roster.before and roster.before.count or 0);
	end
	for _, roster in pairs(rosters) do total = total + weigh(roster); end

	local function drop(room)
		total = total - (rosters[room] and weigh(rosters[room]) or 0);
		rosters[room] = nil;
	end

	local function keep(room, full, join)
		locals[room] = locals[room] or {};
		locals[room][full] = join;
	end

	local function unavailable(room, nick, full)
		return st.presence({ type = "unavailable", from = room.."/"..nick, to = full })
			:tag("x", { xmlns = xmlns_muc_user }):tag("item", { affiliation = "none", role = "none" }):up():up();
	end

	-- The nicks of this host's sessions in a room, as far as is known
	local function local_nicks(room)
		local nicks = {};
		for _, join in pairs(locals[room] or {}) do nicks[join.nick] = true; end
		return nicks;
	end

	-- No session has that nick any more. Clients that came back while its session was out are informed now.
	local function give_up(room, nick)
		local roster = rosters[room];
		local spared = roster and roster.spared and roster.spared[nick];
		if not spared or local_nicks(room)[nick] then return; end
		roster.spared[nick] = nil;
		for full in pairs(spared) do
			local session = locals[room] and locals[room][full] and full_sessions[full];
			if session then session.send(unavailable(room, nick, full)); end
		end
	end

	-- A session is no longer in the room.
	local function lose(room, full, join)
		local here = locals[room];
		if not here then return; end
		here[full] = nil;
		give_up(room, join.nick);
		if not next(here) then
			locals[room] = nil;
			drop(room);
		end
	end

	local function add(roster, nick)
		if roster.nicks[nick] then return; end
		if roster.count < MAX_NICKS and total < MAX_ALL_NICKS then
			roster.nicks[nick], roster.count, total = true, roster.count + 1, total + 1;
		else
			roster.whole, roster.refused = nil, monotonic();
		end
	end

	-- A room has admitted a session that asked at that time, and so has shown it all occupants.
	local function shown(room, asked)
		local roster = rosters[room];
		if not roster or not listening or type(asked) ~= "number" or asked < listening then return; end
		if not roster.refused or roster.refused < asked then roster.whole = true; end
	end

	-- A room shows an occupant, or that one has left.
	local function see(room, nick, is_there)
		local roster = rosters[room];
		if not is_there then
			if not roster then return; end
			if roster.nicks[nick] then roster.nicks[nick], roster.count, total = nil, roster.count - 1, total - 1; end
			if roster.since then roster.since[nick] = nil; end
		elseif settings.reenter and settings.reenter_occupants then
			if not roster then
				roster = { nicks = {}, count = 0, made = monotonic() };
				rosters[room] = roster;
			end
			add(roster, nick);
			if roster.since then roster.since[nick] = roster.nicks[nick]; end
			if roster.spared then roster.spared[nick] = nil; end
		end
	end

	-- The occupants that the client of a session knows that is about to be brought back; nil if that is not known
	local function snapshot(room, join)
		local roster = rosters[room];
		if not roster then return nil; end
		local before, now = roster.before, monotonic();
		if before and now - before.made >= SNAPSHOT_FOR then
			total = total - before.count;
			roster.before, before = nil, nil;
		end
		if not before or join.at > before.at then
			local nicks, count = {}, 0;
			for _, set in ipairs { roster.nicks, before and before.nicks } do
				for nick in pairs(set) do
					if not nicks[nick] then nicks[nick], count = true, count + 1; end
				end
			end
			total = total + count - (before and before.count or 0);
			roster.before, roster.since = { nicks = nicks, count = count, at = next_at(), made = now }, {};
		end
		return roster.before.nicks;
	end

	-- The room has shown all occupants to a session that was brought back. Its client is informed of those who have left.
	local function entered(session, room, join, entry)
		local roster, full = rosters[room], session.full_jid;
		if roster and roster.since then
			local since = roster.since;
			total, roster.nicks, roster.count, roster.since = total - roster.count, {}, 0, nil;
			for _, set in ipairs { since, entry.announced } do
				for nick in pairs(set) do add(roster, nick); end
			end
			add(roster, join.nick);
		end
		shown(room, entry.begun);
		local own, ours = jid.resource(entry.occupant), local_nicks(room);
		for nick in pairs(entry.snapshot or {}) do
			if nick == join.nick or nick == own or entry.announced[nick] then -- luacheck: ignore 542
				-- is in the room
			elseif roster and ours[nick] then
				-- a user of this host who is out, too, and may be about to come back
				roster.spared = roster.spared or {};
				roster.spared[nick] = roster.spared[nick] or {};
				roster.spared[nick][full] = true;
			else
				session.send(unavailable(room, nick, full));
			end
		end
	end

	-- Whether a room has more occupants than the limit; nil if that is not known
	local function is_larger(room, limit)
		local roster = rosters[room];
		if roster and roster.count > limit then return true; end
		local count = 0;
		for _ in pairs(locals[room] or {}) do
			count = count + 1;
			if count > limit then return true; end
		end
		if roster and roster.whole then return false; end
		return nil;
	end

	-- This host's joins in a room, by their full JIDs
	local none = {};
	local function joins_in(room) return locals[room] or none; end

	-- How many occupants a room has, as far as is known
	local function size(room)
		local count = 0;
		for _ in pairs(joins_in(room)) do count = count + 1; end
		return math.max(count, rosters[room] and rosters[room].count or 0);
	end

	-- A room can show occupants to a session, and then not admit it.
	module:add_timer(SWEEP, function ()
		local now = monotonic();
		for room, roster in pairs(rosters) do
			local before = roster.before;
			if before and now - before.made >= SNAPSHOT_FOR then
				total = total - before.count;
				roster.before = nil;
			end
			if not locals[room] and now - roster.made >= SWEEP then drop(room); end
		end
		return SWEEP;
	end);

	local function follow_settings()
		if settings.reenter and settings.reenter_occupants then
			state.listening_to_occupants = state.listening_to_occupants or monotonic();
			listening = state.listening_to_occupants;
			return;
		end
		listening, state.listening_to_occupants = nil, nil;
		for room in pairs(rosters) do drop(room); end
	end
	follow_settings();

	return {
		keep = keep, lose = lose, see = see, snapshot = snapshot, entered = entered, give_up = give_up;
		is_larger = is_larger, size = size, shown = shown, joins_in = joins_in, follow_settings = follow_settings;
	};
end
