-- Actions of the stanza API: carries out each stanza of a request
--
-- A ping, a disco#info query or a re-entry is sent to the room, a notice to the client.

local st = require "util.stanza";
local time_now = require "util.time".now;

local full_sessions = prosody.full_sessions;

local xmlns_data = "jabber:x:data";
local xmlns_disco = "http://jabber.org/protocol/disco#info";

local count_pings = module:measure("pings", "counter");

-- The number of occupants in a room's answer to disco#info (XEP-0045 §15.6.4); nil if there is none
local function occupants_in(stanza)
	local info = stanza.attr.type == "result" and stanza:get_child("query", xmlns_disco);
	for form in (info or st.stanza("nothing")):childtags("x", xmlns_data) do
		for field in form:childtags("field") do
			if field.attr.var == "muc#roominfo_occupants" then return tonumber(field:get_child_text("value") or ""); end
		end
	end
end

return function (settings, joins, queries, closes, rosters, reentry, answers, notices)
	local server_error = answers.server_error;
	local perform;

	-- Returns an error if the join must not be entered again now. Otherwise nothing, and whether the room has more
	-- occupants than the limit: false, or nil if only the room knows.
	local function refuse_reentry(item, join)
		if not settings.reenter then return server_error(item, "cancel", "feature-not-implemented"); end
		if joins.is_entering(join) then return server_error(item, "cancel", "conflict", nil, "rejoining"); end
		local is_larger = item.is_larger;
		if is_larger == nil then is_larger = rosters.is_larger(item.room, settings.reenter_limit); end
		if is_larger then return server_error(item, "wait", "resource-constraint"); end
		return nil, is_larger;
	end

	-- Sends a query. `on_answer` returns the answer to the request; nil if it has sent something else, which is awaited
	-- now. The server can bounce the query before queries.send returns.
	local function query(request, item, to, template, on_answer)
		local id, early;
		id = queries.send(item.full, to, template, function (stanza, is_genuine)
			if not id then early = on_answer(stanza, is_genuine, true); return; end
			request:settle(id, on_answer(stanza, is_genuine, false));
		end);
		if not early then request:await(id, item); end
		return early;
	end

	-- A session that is in its room may have missed the answer to its re-entry.
	local function found_in(request, item, join)
		if settings.reenter and not settings.dry_run then
			reentry.recover(item.full, item.room, join, request.timeout);
		end
	end

	local function ping(request, item, join)
		count_pings(1);
		join.pinged = item.sent;
		return query(request, item, item.occupant, queries.ping, function (stanza, is_genuine)
			if not is_genuine then request.is_unanswered = true; end
			if stanza.attr.type == "result" then found_in(request, item, join); end
			return answers.room_answer(item, stanza, is_genuine);
		end);
	end

	local function disco(request, item)
		return query(request, item, item.room, queries.disco, function (stanza, is_genuine)
			return answers.room_answer(item, stanza, is_genuine);
		end);
	end

	-- This server has not seen all occupants, but the room knows their number. Then the re-entry follows.
	local function ask_for_size(request, item)
		return query(request, item, item.room, queries.disco, function (stanza, is_genuine, is_early)
			if not is_genuine then return answers.room_answer(item, stanza, is_genuine); end
			if is_early then return server_error(item, "wait", "resource-constraint"); end
			item.occupants = occupants_in(stanza);
			item.is_larger = not item.occupants or item.occupants > settings.reenter_limit;
			return perform(request, item);
		end);
	end

	local function reenter(request, item, session, join)
		local id, early;
		local function on_answer(...)
			local answer = answers.reentry_answer(item, ...);
			if not id then early = answer; return; end
			request:settle(id, answer);
		end
		local entry, why = reentry.enter(session, item.room, join, request.timeout, on_answer, item.occupants);
		if why == "full" then return server_error(item, "wait", "unexpected-request"); end
		if not entry then return server_error(item, "cancel", "conflict", nil, "rejoining"); end
		item.entry, id = entry, entry.id;
		if not early then request:await(id, item); end
		return early;
	end

	-- Carries out a stanza. Returns its answer; nil if it is awaited, or if there is none, as for a notice.
	function perform(request, item)
		if item.refused then return server_error(item, "modify", "policy-violation", item.refused); end
		local session, join = full_sessions[item.full], joins.find(item.full, item.room);
		if not session then return server_error(item, "cancel", "recipient-unavailable"); end
		-- The user has left or joined again since the close: no notice, and none for a second time (rule 5 in docs/rules.md).
		if not join or (item.at and (join.at ~= item.at or join.nick ~= item.nick)) then
			return server_error(item, "cancel", "conflict");
		end
		if item.kind == "notice" then return notices.deliver(item, session, join); end
		local refusal, is_larger;
		if item.kind == "reentry" then
			refusal, is_larger = refuse_reentry(item, join);
			if refusal then return refusal; end
		end
		local proven = answers.proof(item);
		if proven then
			if item.kind == "ping" then found_in(request, item, join); end
			return proven;
		end
		item.sent, item.breaks = time_now(), closes.count(item.remote);
		if item.kind == "ping" then return ping(request, item, join); end
		if item.kind == "disco" then return disco(request, item); end
		if is_larger == nil then return ask_for_size(request, item); end
		return reenter(request, item, session, join);
	end

	-- No longer waits for an answer. A re-entry that has been sent is not taken back.
	local function cancel(id, item)
		if item.entry then reentry.cancel(item.entry); else queries.cancel(id); end
	end

	-- The answer to a stanza that the room did not answer in time
	local function expire(id, item)
		local is_in = item.entry and reentry.expire(item.entry);
		local answer = is_in and answers.entered(item) or answers.proof(item) or answers.no_answer(item);
		cancel(id, item);
		return answer;
	end

	return { perform = perform, cancel = cancel, expire = expire };
end
