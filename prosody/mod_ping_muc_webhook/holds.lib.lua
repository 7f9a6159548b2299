-- Holds: what a room sends to a session because of a re-entry, and the client must not see
--
-- The user is out of the room by now, or the room was a new one. Until the room confirms that the session is out, all
-- that it sends is held back. track.holds: room → { ids, nick, is_known, again, admitted }. `ids`: of our stanzas;
-- `is_known`: the client knows already that it is out; `again`: the user has entered since; `admitted`: the room has
-- answered our entry.

local cache = require "util.cache";
local jid = require "util.jid";

local MAX_HOLDS = 100; -- rooms of one session; the oldest are dropped

return function (state)
	local function find(track, room)
		return track.holds and track.holds:get(room);
	end

	-- Returns the new hold; nil if the session is not tracked.
	local function begin(full, room, entry, is_known, is_admitted)
		local track = state.tracks[full];
		if not track then return; end
		track.holds = track.holds or cache.new(MAX_HOLDS);
		local held = {
			ids = { [entry.id] = true, [entry.earlier or entry.id] = true }; nick = jid.resource(entry.occupant);
			is_known = is_known; admitted = is_admitted;
		};
		track.holds:set(room, held);
		return held;
	end

	-- The user itself enters a room from which something is held back.
	local function user_enters(track, room)
		local held = find(track, room);
		if held then held.again = true; end
	end

	local function drop(track, room)
		track.holds:set(room, nil);
	end

	-- Whether a presence from a room is held back from the client
	local function takes_presence(track, room, nick, stanza, is_self)
		local held = find(track, room);
		if not held then return false; end
		local is_ours, presence_type = held.ids[stanza.attr.id or ""] == true, stanza.attr.type;
		if presence_type == "error" then return is_ours or not held.again; end
		if presence_type == "unavailable" and (is_self or nick == held.nick) then
			-- The end of our re-entry. The user's own entry follows it.
			local is_end = not held.again or held.admitted;
			if is_end then drop(track, room); end
			return is_end and held.is_known;
		elseif not held.again then
			return true;
		elseif presence_type == nil and is_self then
			held.admitted = held.admitted or is_ours;
			if not is_ours then drop(track, room); end
			return is_ours;
		end
		return false;
	end

	local function takes_message(track, room)
		local held = find(track, room);
		return held ~= nil and not held.again;
	end

	return { begin = begin, user_enters = user_enters, takes_presence = takes_presence, takes_message = takes_message };
end
