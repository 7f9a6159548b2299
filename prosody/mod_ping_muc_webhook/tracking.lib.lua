-- Tracking: how joins follow from the stanzas between sessions and rooms (rule 1 in docs/rules.md), and what these
-- prove (rule 6)

local jid = require "util.jid";
local time = require "util.time";

local monotonic, time_now = time.monotonic, time.now;
local resourceprep = require "util.encodings".stringprep.resourceprep;

local xmlns_delay = "urn:xmpp:delay";
local xmlns_muc = "http://jabber.org/protocol/muc";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";

-- Whether a stanza came from a remote host, and was not made by this server
local function is_genuine(origin)
	return (origin.type == "s2sin" or origin.type == "s2sout") and not origin.dummy;
end

-- The status codes of a presence, as a set; its <x>, if it has one
local function statuses_of(stanza)
	local statuses, x = {}, stanza:get_child("x", xmlns_muc_user);
	for status in (x or stanza):childtags("status", xmlns_muc_user) do statuses[status.attr.code or ""] = true; end
	return statuses, x;
end

-- The nick that an unavailable presence with status 303 announces
local function new_nick_in(x)
	local item = x and x:get_child("item");
	local nick = item and item.attr.nick and resourceprep(item.attr.nick);
	return nick ~= "" and nick or nil;
end

return function (state, joins, closes, rosters, holds, reentry)

	-- What sessions send

	-- With a low priority, so that a presence that another module has stopped does not count.
	module:hook("pre-presence/full", function (event)
		local origin, stanza = event.origin, event.stanza;
		local full, node, remote, nick = origin.full_jid, jid.split(stanza.attr.to);
		-- The broadcast presence also goes to those who probe, and asks for nothing.
		if stanza.attr.type ~= nil or rawequal(stanza, origin.presence) or reentry.is_ours(stanza) then return; end
		if not full or not joins.is_watched(remote) then return; end
		local room, is_entry = jid.join(node, remote), stanza:get_child("x", xmlns_muc) ~= nil;
		local join, track = joins.find(full, room), state.tracks[full];
		if join and (is_entry or nick ~= join.nick) then reentry.withdraw(join); end
		if is_entry and track then holds.user_enters(track, room); end
		if join and is_entry then join.attempt = time_now(); end
		if not join or join.attempt then joins.track_of(full).asks:set(room, monotonic()); end
	end, -1000);

	local function leave(event)
		local full = event.origin.full_jid;
		if event.stanza.attr.type ~= "unavailable" or not full or not state.tracks[full] then return; end
		local room = jid.bare(event.stanza.attr.to);
		state.tracks[full].asks:set(room, nil);
		if not reentry.is_ours(event.stanza) then joins.finish(full, room, "user"); end
		joins.drop_idle_track(full);
	end
	module:hook("pre-presence/full", leave, 1000);
	module:hook("pre-presence/bare", leave, 1000);

	-- With a low priority: first mod_presence sends unavailable presence to the rooms that it knows.
	module:hook("resource-unbind", function (event)
		local full = event.session.full_jid;
		local track = state.tracks[full];
		if not track then return; end
		for room in pairs(track.rooms) do joins.finish(full, room); end
		state.tracks[full] = nil;
	end, -1000);

	-- What rooms send

	-- A room sends its messages, and its occupants' presence, only to its occupants. A delayed one may be older than the
	-- stream.
	local function prove(join, origin, stanza)
		if not is_genuine(origin) then return; end
		local began = closes.began(origin) or 0;
		if began > (join.proof or 0) and not stanza:get_child("delay", xmlns_delay) then join.proof = began; end
	end

	-- With a high priority, before another module stops it
	module:hook("message/full", function (event)
		local attr = event.stanza.attr;
		local track = attr.type == "groupchat" and state.tracks[attr.to];
		if not track then return; end
		local room = jid.bare(attr.from);
		local join = track.rooms[room];
		if holds.takes_message(track, room) then return true; end
		if not join then return; end
		prove(join, event.origin, event.stanza);
		return reentry.takes_message(attr.to, room, join, event.stanza) or nil;
	end, 1000);

	-- The room does not admit the session. Returns true if its client must not see this.
	local function refused(full, room, track, event)
		local join = track.rooms[room];
		if join and reentry.takes_error(join, event.stanza, is_genuine(event.origin)) then return true; end
		track.asks:set(room, nil);
		if join and join.attempt then joins.finish(full, room, "room"); end
		joins.drop_idle_track(full);
	end

	-- The room confirms that the session is in it. `asked_at`: when the session asked for that, if it did. Returns true
	-- if its client must not see this.
	local function confirmed(full, room, nick, statuses, asked_at, event)
		local join = joins.find(full, room);
		if join and statuses["201"] and reentry.takes_new_room(full, room, join) then return true; end
		if not join or join.attempt or join.nick ~= nick or reentry.is_awaited(join) then joins.record(full, room, nick); end
		join = joins.find(full, room);
		if not join then return; end
		prove(join, event.origin, event.stanza);
		if asked_at then rosters.shown(room, asked_at); end
		reentry.entered(full, room, join);
	end

	-- The room says that the session is no longer in it, or that its nick changes (303).
	local function left_or_renamed(full, room, statuses, x)
		if not statuses["303"] then return joins.finish(full, room, "room"); end
		-- The nick is taken from here, because not every service marks the presence of the new nick with 110. If one does,
		-- that presence decides.
		local nick = new_nick_in(x);
		if nick and nick ~= joins.find(full, room).nick then joins.record(full, room, nick); end
	end

	module:hook("presence/full", function (event)
		local stanza, full = event.stanza, event.stanza.attr.to;
		local track = state.tracks[full];
		local node, remote, nick = jid.split(stanza.attr.from);
		if not track or not node or not joins.is_watched(remote) then return; end
		local room = jid.join(node, remote);
		local join, asked_at = track.rooms[room], track.asks:get(room);
		if not join and not asked_at and not track.holds then return; end

		local presence_type, statuses, x = stanza.attr.type, statuses_of(stanza);
		local is_self = statuses["110"] == true;
		local is_occupant = presence_type == nil and nick and x;
		local is_goodbye = presence_type == "unavailable" and nick and (not is_self or statuses["303"]);
		if (join or asked_at) and (is_occupant or is_goodbye) then rosters.see(room, nick, is_occupant); end
		if holds.takes_presence(track, room, nick, stanza, is_self) then
			joins.drop_idle_track(full);
			return true;
		end
		-- The session has not asked for this. It is here only because something is held back from its client.
		if not join and not asked_at then return joins.drop_idle_track(full); end

		-- A room sends the presence of the others to an entering session before it says whether it admits the session.
		if join and is_occupant and not join.attempt and not reentry.is_awaited(join) then
			prove(join, event.origin, stanza);
		end
		if presence_type == "error" then
			return refused(full, room, track, event);
		elseif presence_type == nil and nick and is_self then
			return confirmed(full, room, nick, statuses, asked_at, event);
		elseif is_occupant and join then
			reentry.announced(join, nick);
		elseif presence_type == "unavailable" and join and (is_self or nick == join.nick) then
			left_or_renamed(full, room, statuses, x);
		end
	end, 1000);
end
