-- Re-entry: the server enters a room again on behalf of a session that is out of it, and the client hears nothing of it
-- but what the room then sends
--
-- One at a time for each join, in join.entry. It is plain data, so that a reload of the module does not forget what is
-- on its way; who asked for it, and waits, is not.

local cache = require "util.cache";
local jid = require "util.jid";
local new_id = require "util.id";
local st = require "util.stanza";

local monotonic = require "util.time".monotonic;
local full_sessions = prosody.full_sessions;

local xmlns_delay = "urn:xmpp:delay";
local xmlns_muc = "http://jabber.org/protocol/muc";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";

local MAX_HOLDS = 100; -- rooms of a session from which something is held back; the oldest is forgotten
local MAX_ANNOUNCED = 2000; -- occupants whom a room shows to one who enters again; as many as rosters know
local BESIDE_PRESENCE = 50; -- stanzas that a room sends to one who enters, beside who is there: its history
local HISTORY_WITHIN = 2; -- seconds from the self-presence that the answer waits for the history
local FILTER_WITHIN = 30; -- seconds in which the history may come, where no subject ends it

local count_reentries = module:measure("reentries", "counter");

return function (state, queries, history, rosters)
	local waiters = {}; -- entry → who waits for its answer
	local sent = setmetatable({}, { __mode = "k" }); -- stanza of ours → its entry, until the session's turn to send it has come

	-- In the session's own order, and through what is hooked to what it sends
	local function send_as(session, stanza)
		stanza.attr.from = session.full_jid;
		session.thread:run(stanza);
	end

	-- Nobody waits for the answer any more. What is on its way stays so.
	local function forget(entry)
		if not waiters[entry] then return; end
		waiters[entry] = nil;
		queries.done(entry.remote);
	end

	local function wait_for(entry, on_answer)
		waiters[entry] = on_answer;
		queries.begun(entry.remote);
	end

	local function answer(entry, ...)
		local on_answer = waiters[entry];
		if not on_answer then return; end
		forget(entry);
		on_answer(...);
	end

	-- Whether the join is being entered again: nothing else is done about it meanwhile.
	local function is_under_way(join)
		local entry = join.entry;
		return entry ~= nil and entry.phase == "asked" and not entry.overdue and (waiters[entry] ~= nil or monotonic() < entry.deadline);
	end

	-- Whether the room's self-presence is, or may be, the answer to a re-entry: a new join
	local function is_awaited(join)
		return join.entry ~= nil and join.entry.phase == "asked";
	end

	-- What is sent to a session that hibernates waits in mod_smacks' queue, which drops its oldest when it is full: then
	-- the session cannot resume, and what waited is lost. Whether half of the queue holds what waits there, and what this
	-- entry brings, and those that are under way; the other half is for what else comes until the client is back.
	local function has_space(session, room, occupants)
		local queue = session.hibernating and session.outgoing_stanza_queue;
		if not queue then return true; end
		local expected = queue:count_unacked() + math.max(rosters.size(room), occupants or 0) + BESIDE_PRESENCE;
		for other, join in pairs(state.tracks[session.full_jid].rooms) do
			if is_awaited(join) then expected = expected + rosters.size(other) + BESIDE_PRESENCE; end
		end
		return expected <= (tonumber(module:get_option("smacks_max_queue_size")) or 500) / 2;
	end

	-- Built from what the server knows: the session's last presence, and what was missed
	local function build(entry, session, join)
		local presence = session.presence and st.clone(session.presence) or st.presence();
		presence:maptags(function (tag)
			local xmlns = tag.attr.xmlns;
			if tag.name == "delay" and xmlns == xmlns_delay or tag.name == "x" and (xmlns == xmlns_muc or xmlns == xmlns_muc_user) then return nil; end
			return tag;
		end);
		presence.attr.to, presence.attr.id, presence.attr.type = entry.occupant, entry.id, nil;
		return presence:tag("x", { xmlns = xmlns_muc })
			:tag("history", { seconds = ("%d"):format(history.seconds(join)) }):up():up();
	end

	-- Enters again. `on_answer` is called once, unless it is forgotten: with "entered" and whether lines are missing, with
	-- "error", the stanza and whether it is genuine, with "new", where it made the room, or with "rejoining", "conflict" or
	-- "gone", where others were faster.
	-- `occupants`: how many the room has said that it has, where it was asked.
	-- Returns the entry; nil where one is under way already; nil and "full" where the session hibernates, and has no space.
	local function enter(session, room, join, timeout, on_answer, occupants)
		local earlier = join.entry;
		if earlier and is_under_way(join) then
			if waiters[earlier] or earlier.withdrawn then return nil; end
			wait_for(earlier, on_answer); -- whoever waited for it is gone
			return earlier;
		end
		if not has_space(session, room, occupants) then return nil, "full"; end
		local entry = {
			phase = "asked", id = new_id.medium(), occupant = room.."/"..join.nick, remote = jid.host(room),
			begun = monotonic(), deadline = monotonic() + timeout, announced = {}, lines = 0,
			earlier = earlier and earlier.phase == "asked" and earlier.id or nil; -- which the room may yet answer
		};
		local stanza = build(entry, session, join);
		entry.known = history.newest(join);
		entry.snapshot = rosters.snapshot(room, join);
		join.entry = entry;
		wait_for(entry, on_answer);
		count_reentries(1);
		sent[stanza] = entry;
		send_as(session, stanza);
		return entry;
	end

	-- Once time is up. Returns whether the session has been let in.
	local function expire(entry)
		forget(entry);
		if entry.phase == "in" then return true; end
		entry.overdue = true; -- the room may yet let it in
		return false;
	end

	-- Whether a session sends this on our word
	local function is_ours(stanza)
		return sent[stanza] ~= nil;
	end

	-- What waited for its turn in the session, and is not wanted any more
	module:hook("pre-presence/full", function (event)
		local entry = sent[event.stanza];
		if entry and entry.over then return true; end
	end, 2000);

	-- The user's own word: it enters, or takes another nick.
	local function withdraw(join)
		local entry = join.entry;
		if not entry or entry.phase ~= "asked" then return; end
		entry.withdrawn = true;
		answer(entry, "rejoining");
	end

	-- What follows from an entry into a room that the user is out of by now: nothing. Until the room has said so, the client
	-- is not shown what the room says. `told`: the client knows already that it is out.
	local function hold(full, room, entry, told)
		local track = state.tracks[full];
		if not track then return; end
		track.holds = track.holds or cache.new(MAX_HOLDS);
		track.holds:set(room, { ids = { [entry.id] = true, [entry.earlier or entry.id] = true }, nick = jid.resource(entry.occupant), told = told });
	end

	-- On the session's behalf, in the place of its client
	local function leave(full, room, entry)
		local stanza = st.presence({ type = "unavailable", to = entry.occupant, id = new_id.medium() });
		state.tracks[full].holds:get(room).ids[stanza.attr.id] = true;
		sent[stanza] = {};
		send_as(full_sessions[full], stanza);
	end

	-- A join ends. `by`: "user", who left; "room", or the "notice", of which the client knows; nil: for a reason of ours.
	local function ended(full, room, join, by)
		local entry = join.entry;
		if not entry then return; end
		join.entry = nil;
		if entry.phase == "in" then return answer(entry, "entered", false); end
		entry.over = true;
		local session = full_sessions[full];
		answer(entry, session and "conflict" or "gone");
		if not session or not by then return; end
		hold(full, room, entry, by ~= "user");
		if by ~= "user" then leave(full, room, entry); end -- its own leave comes behind the entry
	end

	-- The user enters by itself a room from which something is held back.
	local function user_enters(track, room)
		local held = track.holds and track.holds:get(room);
		if held then held.again = true; end
	end

	local function let_go(track, room)
		track.holds:set(room, nil);
	end

	-- Whether a presence from a room is held back from the client
	local function holds_presence(track, room, nick, stanza, is_self)
		local held = track.holds and track.holds:get(room);
		if not held then return false; end
		local is_known, presence_type = held.ids[stanza.attr.id or ""] == true, stanza.attr.type;
		if presence_type == "error" then return is_known or not held.again; end
		if presence_type == "unavailable" and (is_self or nick == held.nick) then
			-- The end of what we began; the user's own entry comes behind it.
			local is_end = not held.again or held.admitted;
			if is_end then let_go(track, room); end
			return is_end and held.told;
		elseif not held.again then
			return true;
		elseif presence_type == nil and is_self then
			held.admitted = held.admitted or is_known;
			if not is_known then let_go(track, room); end
			return is_known;
		end
		return false;
	end

	local function holds_message(track, room)
		local held = track.holds and track.holds:get(room);
		return held ~= nil and not held.again;
	end

	-- Whether an error from a room is the answer to a re-entry, and therefore not for the client
	local function takes_error(join, stanza, genuine)
		local entry, id = join.entry, stanza.attr.id;
		if not entry or entry.phase ~= "asked" then return false; end
		if id == nil and join.attempt then
			-- Rather the client's: it must learn that it is not let in. The room has answered what came before that, if ever.
			join.entry = nil;
			return false;
		end
		if id ~= nil and id ~= entry.id then return id == entry.earlier; end
		if genuine then join.entry = nil; else entry.overdue = true; end
		answer(entry, "error", stanza, genuine);
		return true;
	end

	-- An occupant whom the room shows to one who is entering again. Where there are too many, or it takes too long, nobody
	-- knows them all: then nobody is said to have left.
	local function announced(join, nick)
		local entry = join.entry;
		if not is_awaited(join) or entry.announced[nick] then return; end
		local count = entry.announced_count or 0;
		if entry.overdue or count >= MAX_ANNOUNCED then
			entry.snapshot = nil;
			return;
		end
		entry.announced[nick], entry.announced_count = true, count + 1;
	end

	-- The room says that it is a new one (status 201), with the user as its owner. Where that is the answer to a re-entry the
	-- session leaves at once, and its client hears nothing of it. The join stays, for a notice.
	local function takes_new_room(full, room, join)
		local entry = join.entry;
		if not is_awaited(join) or entry.withdrawn or not full_sessions[full] then return false; end
		module:log("debug", "Re-entry of %s into %s: the room was gone, and is left again", full, room);
		join.entry, entry.over = nil, true;
		hold(full, room, entry, true);
		state.tracks[full].holds:get(room).admitted = true;
		leave(full, room, entry);
		answer(entry, "new");
		return true;
	end

	-- The history has come, or will not.
	local function finish(full, room, join, entry)
		local missed = history.is_missed(entry);
		if missed and not entry.finished then
			module:log("info", "The history of %s did not reach back to what %s had: lines are missing", room, full);
			history.count_gap();
		end
		entry.finished = true;
		answer(entry, "entered", missed);
		if join.entry == entry and not entry.earlier then join.entry = nil; end -- else the room may send it twice
	end

	-- The room has let the session in. Its join has been recorded anew.
	local function entered(full, room, join)
		local entry, session = join.entry, full_sessions[full];
		if not is_awaited(join) then return; end
		if entry.withdrawn or not session then
			join.entry = nil;
			return;
		end
		module:log("debug", "Re-entry of %s into %s", full, room);
		entry.phase, entry.filter_until = "in", monotonic() + FILTER_WITHIN;
		rosters.entered(session, room, join, entry);
		entry.announced, entry.snapshot = nil, nil;
		module:add_timer(HISTORY_WITHIN, function () answer(entry, "entered", history.is_missed(entry)); end);
	end

	-- A message of the room. Returns whether it is held back: the session had it before.
	local function takes_message(full, room, join, stanza)
		local entry = join.entry;
		local is_delayed = stanza:get_child("delay", xmlns_delay) ~= nil;
		local is_filtered = entry and not entry.withdrawn and (entry.phase == "asked" or monotonic() < entry.filter_until);
		if is_filtered and is_delayed and history.is_line(stanza) then
			entry.lines = entry.lines + 1;
			local key = history.had(join, room, stanza);
			if key then
				entry.came_back = entry.came_back or key == entry.known;
				return true;
			end
		elseif entry and entry.phase == "in" and (not is_filtered or history.is_subject(stanza)) then
			finish(full, room, join, entry);
		end
		history.heard(join, room, stanza, is_delayed);
		return false;
	end

	return {
		enter = enter, expire = expire, forget = forget, is_under_way = is_under_way, is_ours = is_ours;
		withdraw = withdraw, ended = ended, user_enters = user_enters;
		holds_presence = holds_presence, holds_message = holds_message;
		takes_error = takes_error, takes_new_room = takes_new_room, takes_message = takes_message;
		is_awaited = is_awaited, announced = announced, entered = entered;
	};
end
