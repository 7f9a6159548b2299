-- Re-entry: the server enters a room again on behalf of a session that is out of it. The client sees only what the room
-- then sends. Rule 10 in docs/rules.md.
--
-- One at a time for each join, in join.entry: { phase, id, occupant, remote, begun, deadline, earlier, known,
-- snapshot, announced, announced_count, lines, came_back, overdue, withdrawn, over, filter_until, finished }.
-- `phase`: "asked", or "in" when the room has admitted the session. This is plain data, so that it survives a reload
-- of the module. Who waits for the answer does not survive it.

local jid = require "util.jid";
local new_id = require "util.id";
local st = require "util.stanza";

local monotonic = require "util.time".monotonic;
local full_sessions = prosody.full_sessions;

local xmlns_delay = "urn:xmpp:delay";
local xmlns_muc = "http://jabber.org/protocol/muc";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";

local MAX_ANNOUNCED = 2000; -- occupants whom a room shows to an entering session; as many as rosters store
local BESIDE_PRESENCE = 50; -- stanzas that a room sends to an entering session beside the occupants: its history
local HISTORY_WITHIN = 2; -- seconds from the self-presence for which the answer waits for the history
local FILTER_WITHIN = 30; -- seconds in which the history may arrive, if no subject ends it

local count_reentries = module:measure("reentries", "counter");

return function (state, queries, holds, history, rosters)
	local waiters = {}; -- entry → the function to call with its answer
	local sent = setmetatable({}, { __mode = "k" }); -- our stanza → its entry, until the session has sent it

	-- In the session's own order, and through the hooks for what a session sends
	local function send_as(session, stanza)
		stanza.attr.from = session.full_jid;
		session.thread:run(stanza);
	end

	-- The answer is no longer awaited. An entry that has been sent is not taken back.
	local function cancel(entry)
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
		cancel(entry);
		on_answer(...);
	end

	-- Whether the join is being entered again. Nothing else is done about it meanwhile.
	local function is_under_way(join)
		local entry = join.entry;
		return entry ~= nil and entry.phase == "asked" and not entry.overdue
			and (waiters[entry] ~= nil or monotonic() < entry.deadline);
	end

	-- Whether the room's self-presence is, or may be, the answer to a re-entry: a new join
	local function is_awaited(join)
		return join.entry ~= nil and join.entry.phase == "asked";
	end

	-- Stanzas for a session that hibernates wait in mod_smacks' queue. If it overflows, the session cannot resume, and
	-- what waits is lost. Returns whether half of the queue holds what waits there, and what this entry and those under
	-- way will bring. The other half is for whatever else arrives until the client is back.
	local function has_space(session, room, occupants)
		local queue = session.hibernating and session.outgoing_stanza_queue;
		if not queue then return true; end
		local expected = queue:count_unacked() + math.max(rosters.size(room), occupants or 0) + BESIDE_PRESENCE;
		for other, join in pairs(state.tracks[session.full_jid].rooms) do
			if is_awaited(join) then expected = expected + rosters.size(other) + BESIDE_PRESENCE; end
		end
		return expected <= (module:get_option_number("smacks_max_queue_size") or 500) / 2;
	end

	local function is_replaced(tag)
		local xmlns = tag.attr.xmlns;
		return tag.name == "delay" and xmlns == xmlns_delay
			or tag.name == "x" and (xmlns == xmlns_muc or xmlns == xmlns_muc_user);
	end

	-- Built from what the server knows: the session's last presence, and the time of its last message
	local function build(entry, session, join)
		local presence = session.presence and st.clone(session.presence) or st.presence();
		presence:maptags(function (tag) return not is_replaced(tag) and tag or nil; end);
		presence.attr.to, presence.attr.id, presence.attr.type = entry.occupant, entry.id, nil;
		return presence:tag("x", { xmlns = xmlns_muc })
			:tag("history", { seconds = ("%d"):format(history.seconds(join)) }):up():up();
	end

	-- Enters again. `occupants`: their number, if the room was asked for it.
	-- `on_answer` is called once, unless the entry is cancelled: with "entered" and whether messages are missing; with
	-- "error", the stanza and whether it is genuine; with "new" if the room was created; with "rejoining", "conflict" or
	-- "gone" if the session has entered or left the room by itself, or has ended.
	-- Returns the entry; nil if one is under way already; nil and "full" if the session hibernates, and has no space.
	local function enter(session, room, join, timeout, on_answer, occupants)
		local earlier = join.entry;
		if earlier and is_under_way(join) then
			if waiters[earlier] or earlier.withdrawn then return nil; end
			wait_for(earlier, on_answer); -- since a reload nobody waits for it
			return earlier;
		end
		if not has_space(session, room, occupants) then return nil, "full"; end
		local entry = {
			phase = "asked", id = new_id.medium(), occupant = room.."/"..join.nick, remote = jid.host(room),
			begun = monotonic(), deadline = monotonic() + timeout, announced = {}, lines = 0,
			earlier = earlier and earlier.phase == "asked" and earlier.id or nil; -- which the room may still answer
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

	-- The time is over. Returns whether the session has been admitted.
	local function expire(entry)
		cancel(entry);
		if entry.phase == "in" then return true; end
		entry.overdue = true; -- the room may still admit it
		return false;
	end

	-- The room has answered a ping that the session is in it, and not the re-entry before. Stanzas arrive in order, so the
	-- answer was lost with a stream, and with it what the client has missed. An occupant that enters once more gets all of
	-- it again. Nobody waits for that: if it fails, the session is in the room nevertheless.
	local function recover(full, room, join, timeout)
		local entry, session = join.entry, full_sessions[full];
		if not session or not is_awaited(join) or entry.withdrawn then return; end
		module:log("debug", "Re-entry of %s into %s: its answer was lost with a stream, so it is repeated", full, room);
		entry.overdue = true;
		answer(entry, "entered", false);
		local again = enter(session, room, join, timeout, function () end);
		if again then module:add_timer(timeout, function () expire(again); end); end
	end

	-- Whether a stanza that a session sends is ours
	local function is_ours(stanza)
		return sent[stanza] ~= nil;
	end

	-- The session has not sent the entry yet, and it is no longer wanted.
	module:hook("pre-presence/full", function (event)
		local entry = sent[event.stanza];
		if entry and entry.over then return true; end
	end, 2000);

	-- The user's own action: it enters, or takes another nick.
	local function withdraw(join)
		local entry = join.entry;
		if not entry or entry.phase ~= "asked" then return; end
		entry.withdrawn = true;
		answer(entry, "rejoining");
	end

	-- Leaves on the session's behalf.
	local function leave(full, entry, held)
		local stanza = st.presence({ type = "unavailable", to = entry.occupant, id = new_id.medium() });
		held.ids[stanza.attr.id] = true;
		sent[stanza] = {};
		send_as(full_sessions[full], stanza);
	end

	-- A join ends. `by`: the "user", who left; the "room", or a "notice", so that the client knows; nil: for another
	-- reason.
	local function ended(full, room, join, by)
		local entry = join.entry;
		if not entry then return; end
		join.entry = nil;
		if entry.phase == "in" then return answer(entry, "entered", false); end
		entry.over = true;
		local session = full_sessions[full];
		answer(entry, session and "conflict" or "gone");
		if not session or not by then return; end
		local held = holds.begin(full, room, entry, by ~= "user");
		if by ~= "user" then leave(full, entry, held); end -- the user's own leave follows the entry
	end

	-- Whether an error from a room is the answer to a re-entry, and therefore not for the client
	local function takes_error(join, stanza, is_genuine)
		local entry, id = join.entry, stanza.attr.id;
		if not entry or entry.phase ~= "asked" then return false; end
		if id == nil and join.attempt then
			-- Probably the answer to the client, which must learn that it is not admitted. The room answers in order.
			join.entry = nil;
			return false;
		end
		if id ~= nil and id ~= entry.id then return id == entry.earlier; end
		if is_genuine then join.entry = nil; else entry.overdue = true; end
		answer(entry, "error", stanza, is_genuine);
		return true;
	end

	-- An occupant whom the room shows to an entering session. If there are too many, or they come too late, the list is
	-- not complete. Then no occupant is reported as gone.
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

	-- The room says that it is new (status 201), and the user its owner. If that is the answer to a re-entry, the session
	-- leaves at once, and its client sees nothing of it. The join stays, for a notice.
	local function takes_new_room(full, room, join)
		local entry = join.entry;
		if not is_awaited(join) or entry.withdrawn or not full_sessions[full] then return false; end
		module:log("debug", "Re-entry of %s into %s: the room no longer existed, the session leaves it again", full, room);
		join.entry, entry.over = nil, true;
		leave(full, entry, holds.begin(full, room, entry, true, true));
		answer(entry, "new");
		return true;
	end

	-- The history has arrived, or will not.
	local function finish(full, room, join, entry)
		local is_missed = history.is_missed(entry);
		if is_missed and not entry.finished then
			module:log("info", "The history of %s did not reach back to what %s had: messages are missing", room, full);
			history.count_gap();
		end
		entry.finished = true;
		answer(entry, "entered", is_missed);
		if join.entry == entry and not entry.earlier then join.entry = nil; end -- otherwise the room may send it twice
	end

	-- The room has admitted the session, and its new join has been recorded.
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
		local is_filtered = entry and not entry.withdrawn
			and (entry.phase == "asked" or monotonic() < entry.filter_until);
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
		enter = enter, expire = expire, cancel = cancel, recover = recover, is_under_way = is_under_way, is_ours = is_ours;
		withdraw = withdraw, ended = ended, is_awaited = is_awaited, announced = announced, entered = entered;
		takes_error = takes_error, takes_new_room = takes_new_room, takes_message = takes_message;
	};
end
