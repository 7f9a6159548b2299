-- The stanza API: pings, re-entries and notices for the receiver

local json = require "util.json";
local st = require "util.stanza";
local time_now = require "util.time".now;

local utf8_valid, xml_escape = require "util.encodings".utf8.valid, st.xml_escape;
local hosts, full_sessions = prosody.hosts, prosody.full_sessions;
local cut = module:require "text".cut;
local contract = module:require "stanzas";

local xmlns_disco = "http://jabber.org/protocol/disco#info";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";
local xmlns_ping_muc = "urn:ping-muc:0";
local xmlns_stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";

local MAX_BODY = 1024 * 1024; -- bytes of a stanza request
local MAX_REQUESTS = 16; -- stanza requests that are being read and sent on
local MAX_WAITING = 256; -- stanza requests that wait for rooms
local MAX_WAITING_FOR_HOST = 8; -- of those, the ones that wait for one remote host: a silent one must not hold up the others
-- Of both, the ones about a single room: whoever has many rooms checked, one by one, must not hold up the checks of
-- whole hosts
local MAX_SINGLE, MAX_SINGLE_FOR_HOST = 192, 6;
local MAX_IN_FLIGHT = 1000; -- queries to one remote host: it reads them at its own pace
local MAX_ALL_IN_FLIGHT = 32000; -- queries to all remote hosts
local WARN_AGAIN = 60; -- seconds after which a refusal for the same reason may be a warning again
local MAX_ID, MAX_ANSWER, MAX_ANSWER_TEXT = 128, 8192, 1024; -- bytes: of a condition; of a room's answer passed as it came; of its text otherwise
local SLICE, TICK = 50, 0.001; -- stanzas dealt with before others get the event loop; seconds until the next

local count_pings = module:measure("pings", "counter");
local count_notices = module:measure("notices", "counter");
local count_proofs = module:measure("proofs", "counter"); -- pings answered by what the room had sent the session
local count_requests = module:metric("counter", "requests", "", "Requests to the stanza API by HTTP status", { "status" });

return function (settings, state, signature, joins, queries, closes, rosters, reentry, doubts)
	local REPLAY_MEMORY = 2 * signature.TOLERANCE; -- seconds: a timestamp may be ahead, too

	local titles = {
		[400] = "Bad Request"; [401] = "Unauthorized"; [413] = "Content Too Large"; [415] = "Unsupported Media Type";
		[429] = "Too Many Requests"; [503] = "Service Unavailable";
	};

	local wrong_request = "Whoever sent it is not the receiver of our webhooks, or not of a release that this one understands";
	local busy = "The receiver tries again by itself. If this goes on, look for a remote host that answers slowly";
	local advice = {
		[400] = wrong_request; [401] = "Check that the receiver knows the ping_muc_secret, and that the clocks of both sides are right";
		[413] = wrong_request; [415] = wrong_request; [429] = busy; [503] = busy;
	};
	local last_status; -- of the request before
	local warned = {}; -- status → when it was warned of

	-- The first of a row of refusals is for the operator, the rest for those who look closely.
	local function note(status, detail)
		count_requests:with_labels(("%d"):format(status)):add(1);
		if status ~= 200 then
			local is_first = last_status ~= status and time_now() - (warned[status] or -math.huge) >= WARN_AGAIN;
			if is_first then warned[status] = time_now(); end
			module:log(is_first and "warn" or "debug", "A request to the stanza API was refused (%d: %s). %s",
				status, detail, advice[status]);
		end
		last_status = status;
	end

	local function problem(status, detail)
		local later = status == 429 or status == 503;
		note(status, detail);
		return {
			status_code = status;
			headers = { content_type = "application/problem+json"; retry_after = later and "1" or nil };
			body = json.encode({ type = "about:blank", title = titles[status], status = status, detail = detail });
		};
	end

	local function replay_key(headers)
		return headers.webhook_id.."\0"..headers.webhook_timestamp;
	end

	local function remember_request(headers)
		local replays, now = state.replays, os.time();
		while true do
			local oldest, forget_at = replays:tail();
			if not oldest or forget_at > now then break; end
			replays:set(oldest, nil);
		end
		local key = replay_key(headers);
		return replays:set(key, now + REPLAY_MEMORY) and key;
	end

	-- Stanza API: answers

	local function answer_to(item, answer_type)
		return st.stanza(item.name, { type = answer_type, id = item.id, from = item.to, to = item.from });
	end

	-- extra: an element of ours, and its attributes
	local function server_error(item, error_type, condition, text, extra, attributes)
		local answer = answer_to(item, "error"):tag("error", { type = error_type, by = module.host })
			:tag(condition, { xmlns = xmlns_stanzas }):up();
		if text then answer:text_tag("text", text, { xmlns = xmlns_stanzas }); end
		if extra then
			attributes = attributes or {};
			attributes.xmlns = xmlns_ping_muc;
			answer:tag(extra, attributes):up();
		end
		local closed = condition:find("^remote%-server") and closes.newest(item.remote);
		if closed then answer:tag("closed", { xmlns = xmlns_ping_muc, at = ("%d"):format(closed) }):up(); end
		return tostring(answer);
	end

	-- Nearly every answer, so written as it is, without building it before
	local function result(item, content)
		return ("<iq type='result' id='%s' from='%s' to='%s'%s"):format(xml_escape(item.id), xml_escape(item.to), xml_escape(item.from),
			content and ">"..content.."</iq>" or "/>");
	end

	-- The room has sent the session what only its occupants get, over a stream younger than the close that is asked about.
	-- It is no news where the room has answered itself.
	local function proof(item)
		local join = item.close and joins.find(item.full, item.room);
		if not join or join.at ~= item.at or (join.proof or 0) <= item.close then return; end
		count_proofs(1);
		return result(item, "<proof xmlns='"..xmlns_ping_muc.."'/>");
	end

	local function is_reachable(remote)
		local session = hosts[module.host].s2sout[remote];
		return session and (session.type == "s2sout" or session.type == "s2sin");
	end

	-- Streams that broke while an answer was awaited may have taken it along; without any, the server's own word is that
	-- the host cannot be reached; else the room did not answer, and perhaps nobody there did.
	local function no_answer(item)
		local broken = closes.count(item.remote) ~= item.breaks;
		if not broken and not is_reachable(item.remote) then return server_error(item, "wait", "remote-server-timeout"); end
		local heard = (joins.heard(item.remote) or 0) > item.sent;
		return server_error(item, "wait", "remote-server-timeout", nil, "no-answer", {
			streams = broken and "broken" or "kept", heard = heard and "true" or "false";
		});
	end

	local function room_answer(item, stanza, genuine)
		if stanza.attr.type == "result" then return result(item); end
		local error_type, condition, text = stanza:get_error();
		if not genuine then
			local proven = proof(item);
			if proven then return proven; end
			-- mod_smacks gives back what a stream that ended had not acknowledged: that says nothing of the host.
			if closes.count(item.remote) ~= item.breaks then return no_answer(item); end
			if condition == "remote-server-not-found" then return server_error(item, "cancel", condition); end
			return server_error(item, "wait", "remote-server-timeout");
		end
		-- What is nested too deep for Lua's stack cannot be written down
		local fine, answer = pcall(function ()
			local copy = st.clone(stanza);
			copy.attr = answer_to(item, "error").attr;
			-- Some give back what was sent: the session's presence is not the receiver's.
			if item.kind == "reentry" then copy:maptags(function (tag) return tag.name == "error" and tag or nil; end); end
			for _, tag in ipairs(copy.tags) do
				if tag.name == "error" and tag.attr.by == module.host then tag.attr.by = nil; end
			end
			return tostring(copy);
		end);
		if fine and #answer <= MAX_ANSWER then return answer; end
		if not condition or #condition > MAX_ID then condition = "undefined-condition"; end
		if not error_type or #error_type > MAX_ID then error_type = "cancel"; end
		local copy = answer_to(item, "error"):tag("error", { type = error_type })
			:tag(condition, { xmlns = xmlns_stanzas }):up();
		if text then copy:text_tag("text", cut(text, MAX_ANSWER_TEXT), { xmlns = xmlns_stanzas }); end
		return tostring(copy);
	end

	-- Stanza API: requests

	local requests, reading, waiting, in_flight = {}, 0, 0, 0; -- the numbers of requests that are read, that wait, and of queries
	local waiting_for = {}; -- remote host → number of requests that wait for it
	local single, single_for = 0, {}; -- the same of those about a single room
	local planned = {}; -- remote host → number of queries that requests have yet to send

	-- The queries of a request count from when it is taken: another that comes before they are sent must not fit in, too.
	local function plan(request, remote, more)
		request.planned[remote] = (request.planned[remote] or 0) + more;
		planned[remote] = (planned[remote] or 0) + more;
		if planned[remote] == 0 then planned[remote] = nil; end
	end

	local function forget(id, item)
		if item.entry then reentry.forget(item.entry); else queries.forget(id); end
		in_flight = in_flight - 1;
	end

	local function close_request(request)
		if not requests[request] then return; end
		requests[request] = nil;
		if request.is_waiting then
			waiting = waiting - 1;
			if request.is_single then single = single - 1; end
			for remote in pairs(request.planned) do
				waiting_for[remote] = waiting_for[remote] > 1 and waiting_for[remote] - 1 or nil;
				if request.is_single then single_for[remote] = single_for[remote] > 1 and single_for[remote] - 1 or nil; end
			end
		else
			reading = reading - 1;
		end
		if request.timer then request.timer:stop(); end
		for remote, count in pairs(request.planned) do plan(request, remote, -count); end
		for id, item in pairs(request.waiting) do forget(id, item); end
	end

	local function respond(request, reply)
		close_request(request);
		local response = request.response;
		response.status_code = reply.status_code or 200;
		for name, value in pairs(reply.headers) do response.headers[name] = value; end
		response:send(reply.body);
	end

	local function respond_when_done(request)
		if not requests[request] or request.next <= #request.items or next(request.waiting) then return; end
		note(200);
		doubts.asked(request.rooms, not request.is_unanswered);
		respond(request, {
			headers = { content_type = "application/xmpp+xml" };
			body = "<xmpp>"..table.concat(request.answers).."</xmpp>";
		});
	end

	-- The session has asked to enter again, and the room may be about to let it in: a notice now would put it out once more.
	-- An attempt that nobody answers has its time-out; a ping after it says more than one before it.
	local function is_rejoining(join)
		local attempt = join.attempt;
		return attempt and (time_now() - attempt < settings.timeout or attempt > (join.pinged or 0));
	end

	-- The notice is built here from a room's name, a nick that the room confirmed, and a text: nothing else can be said.
	local sending; -- the notice that is being sent, for as long as it is

	-- A client that is inactive (XEP-0352) gets it at once, and not when something else wakes it up.
	module:hook("csi-is-stanza-important", function (event)
		local attr = st.is_stanza(event.stanza) and event.stanza.attr;
		if sending and attr and attr.id == sending.id and attr.from == sending.occupant then
			event.reason = "notice";
			return true;
		end
	end, 1);

	local function deliver_notice(item, session, join)
		if is_rejoining(join) or reentry.is_under_way(join) then return server_error(item, "cancel", "conflict", nil, "rejoining"); end
		sending = item;
		local sent = session.send(st.presence({ type = "unavailable", id = item.id, from = item.occupant, to = item.full })
			:tag("x", { xmlns = xmlns_muc_user })
				:tag("item", { affiliation = "none", role = "none" }):text_tag("reason", item.reason):up()
				:tag("status", { code = "110" }):up():tag("status", { code = "330" }):up():tag("status", { code = "333" }):up());
		sending = nil;
		if not sent then return server_error(item, "cancel", "recipient-unavailable"); end
		module:log("debug", "Notice to %s: out of %s", item.full, item.room);
		count_notices(1);
		joins.finish(item.full, item.room, "notice");
	end

	local function entered(item, missed)
		return ("<presence id='%s' from='%s' to='%s'><x xmlns='%s'><status code='110'/></x>%s</presence>"):format(xml_escape(item.id),
			xml_escape(item.to), xml_escape(item.from), xmlns_muc_user, missed and "<reentry xmlns='"..xmlns_ping_muc.."' missed='yes'/>" or "");
	end

	local function reentry_answer(item, what, ...)
		if what == "entered" then return entered(item, ...); end
		if what == "error" then return room_answer(item, ...); end
		if what == "new" then return server_error(item, "cancel", "item-not-found"); end
		if what == "gone" then return server_error(item, "cancel", "recipient-unavailable"); end
		return server_error(item, "cancel", "conflict", nil, what == "rejoining" and what or nil);
	end

	-- The number of occupants that a room tells (XEP-0045 §15.6.4); nil where it tells none
	local function occupants_in(stanza)
		local info = stanza.attr.type == "result" and stanza:get_child("query", xmlns_disco);
		for form in (info or st.stanza("nothing")):childtags("x", "jabber:x:data") do
			for field in form:childtags("field") do
				if field.attr.var == "muc#roominfo_occupants" then return tonumber(field:get_child_text("value") or ""); end
			end
		end
	end

	-- `is_asked`: about the same once more, after the room has said how many are in it
	local function handle_item(request, item, is_asked)
		if item.refused then return server_error(item, "modify", "policy-violation", item.refused); end
		if item.kind ~= "notice" and not is_asked then plan(request, item.remote, -1); end
		local session, join = full_sessions[item.full], joins.find(item.full, item.room);
		if not session then return server_error(item, "cancel", "recipient-unavailable"); end
		if not join or (item.at and (join.at ~= item.at or join.nick ~= item.nick)) then
			return server_error(item, "cancel", "conflict");
		end
		if item.kind == "notice" then return deliver_notice(item, session, join); end
		local is_reentry, is_larger = item.kind == "reentry", nil;
		if is_reentry then
			if not settings.reenter then return server_error(item, "cancel", "feature-not-implemented"); end
			if is_rejoining(join) then return server_error(item, "cancel", "conflict", nil, "rejoining"); end
			is_larger = item.is_larger;
			if is_larger == nil then is_larger = rosters.is_larger(item.room, settings.reenter_limit); end
			if is_larger then return server_error(item, "wait", "resource-constraint"); end
		end
		local proven = proof(item);
		if proven then return proven; end

		local id, early;
		item.sent, item.breaks = time_now(), closes.count(item.remote);
		local answer_of = is_reentry and reentry_answer or room_answer;
		local function on_answer(...)
			if item.kind == "ping" and not select(2, ...) then request.is_unanswered = true; end -- the server's own word
			if not id then early = answer_of(item, ...); return; end
			request.waiting[id], in_flight = nil, in_flight - 1;
			table.insert(request.answers, answer_of(item, ...));
			respond_when_done(request);
		end
		if is_reentry and is_larger == nil then
			-- Nobody has seen all who are in the room: the room knows.
			id = queries.send(item.full, item.room, queries.disco, function (stanza, genuine)
				local answer;
				if not genuine then
					answer = room_answer(item, stanza, genuine);
				else
					local occupants = occupants_in(stanza);
					item.occupants, item.is_larger = occupants, not occupants or occupants > settings.reenter_limit;
				end
				if not id then early = answer or server_error(item, "wait", "resource-constraint"); return; end
				request.waiting[id], in_flight = nil, in_flight - 1;
				answer = answer or handle_item(request, item, true);
				if answer then table.insert(request.answers, answer); end
				respond_when_done(request);
			end);
		elseif is_reentry then
			local why;
			item.entry, why = reentry.enter(session, item.room, join, request.timeout, on_answer, item.occupants);
			if why == "full" then return server_error(item, "wait", "unexpected-request"); end
			if not item.entry then return server_error(item, "cancel", "conflict", nil, "rejoining"); end
			id = item.entry.id;
		elseif item.kind == "ping" then
			count_pings(1);
			join.pinged = item.sent;
			id = queries.send(item.full, item.occupant, queries.ping, on_answer);
		else
			id = queries.send(item.full, item.room, queries.disco, on_answer);
		end
		-- A local bounce can come back before the sending returns.
		if not early then request.waiting[id], in_flight = item, in_flight + 1; end
		return early;
	end

	local function expire(request)
		request.is_unanswered = true;
		for id, item in pairs(request.waiting) do
			local is_in = item.entry and reentry.expire(item.entry);
			table.insert(request.answers, is_in and entered(item) or proof(item) or no_answer(item));
			forget(id, item);
		end
		request.waiting = {};
		respond_when_done(request);
	end

	local function later(step, request)
		module:add_timer(TICK, function () step(request); end);
	end

	local function work(request)
		if not requests[request] then return; end
		local last = math.min(request.next + SLICE - 1, #request.items);
		for i = request.next, last do
			table.insert(request.answers, (handle_item(request, request.items[i])));
		end
		request.next = last + 1;
		if request.next <= #request.items then
			later(work, request);
			return;
		end
		-- From here on, so that a slow start of a long request does not look like silence of the rooms
		if next(request.waiting) then
			request.is_waiting, request.stanzas = true, nil;
			reading, waiting = reading - 1, waiting + 1;
			if request.is_single then single = single + 1; end
			for remote in pairs(request.planned) do
				waiting_for[remote] = (waiting_for[remote] or 0) + 1;
				if request.is_single then single_for[remote] = (single_for[remote] or 0) + 1; end
			end
			request.timer = module:add_timer(request.timeout, function () expire(request); end);
		end
		respond_when_done(request);
	end

	-- Nothing of it was sent, so there is nothing to remember.
	local function turn_away(request, status, detail)
		state.replays:set(request.key, nil);
		respond(request, problem(status, detail));
	end

	-- All of a request is looked at before any of it is sent.
	local function examine(request)
		if not requests[request] then return; end
		local stanzas, items = request.stanzas, request.items;
		local last = math.min(#items + SLICE, #stanzas);
		for i = #items + 1, last do
			local stanza = stanzas[i];
			local item, why = contract.check(stanza, module.host);
			item = item or { refused = why };
			item.name, item.id, item.from, item.to = stanza.name, stanza.attr.id, stanza.attr.from, stanza.attr.to;
			items[i] = item;
		end
		if last < #stanzas then
			later(examine, request);
			return;
		end
		local count, rooms = 0, {};
		for _, item in ipairs(items) do
			if item.kind and item.kind ~= "notice" then
				plan(request, item.remote, 1);
				count = count + 1;
				rooms[item.room] = true;
			end
		end
		request.rooms, request.is_single = rooms, count > 0 and next(rooms, (next(rooms))) == nil;
		local is_full = waiting >= MAX_WAITING or (request.is_single and single >= MAX_SINGLE);
		if count > 0 and (is_full or in_flight + count > MAX_ALL_IN_FLIGHT) then
			return turn_away(request, 503, "too many requests wait for rooms");
		end
		for remote in pairs(request.planned) do
			if (waiting_for[remote] or 0) >= MAX_WAITING_FOR_HOST then
				return turn_away(request, 429, ("%d requests wait for one remote host already"):format(MAX_WAITING_FOR_HOST));
			elseif request.is_single and (single_for[remote] or 0) >= MAX_SINGLE_FOR_HOST then
				return turn_away(request, 429, ("%d requests about single rooms wait for one remote host already"):format(MAX_SINGLE_FOR_HOST));
			elseif planned[remote] + (queries.in_flight[remote] or 0) > MAX_IN_FLIGHT then
				return turn_away(request, 429, ("more than %d pings would be in flight to one remote host"):format(MAX_IN_FLIGHT));
			end
		end
		work(request);
	end

	local function read(request)
		if not requests[request] then return; end
		local root = request.read_on();
		if root == nil then return later(read, request); end
		local stanzas, wait = nil, "the body is not XML as XMPP has it";
		if root then stanzas, wait = contract.check_root(root); end
		if not stanzas then return turn_away(request, 400, wait); end
		request.stanzas, request.timeout = stanzas, wait;
		examine(request);
	end

	local function handle_request(event)
		local headers, body = event.request.headers, event.request.body or "";
		if #body > MAX_BODY then return problem(413, "the body has more than "..MAX_BODY.." bytes"); end
		local unsigned = signature.check(headers, body);
		if unsigned then return problem(401, unsigned); end
		if state.replays:get(replay_key(headers)) then
			return problem(401, "this request was replayed: a retry takes a new webhook-timestamp");
		end
		if not (headers.content_type or ""):lower():find("^application/xmpp%+xml%f[%s;%z]") then
			return problem(415, "the content type must be application/xmpp+xml");
		end
		if reading >= MAX_REQUESTS then return problem(503, "too many requests in flight"); end
		if not utf8_valid(body) or body:find("\0", 1, true) then return problem(400, "the body is not UTF-8"); end
		-- What looks like markup counts as such, so that no body within its size limit can stall the event loop
		if contract.has_too_many_marks(body) then return problem(400, "the body has too much markup"); end
		local key = remember_request(headers);
		if not key then return problem(503, "too many requests within "..REPLAY_MEMORY.." seconds"); end

		local request = {
			response = event.response; key = key; read_on = contract.reader(body);
			items = {}; next = 1; answers = {}; waiting = {}; planned = {};
		};
		requests[request], reading = true, reading + 1;
		event.response.on_destroy = function () close_request(request); end;
		read(request);
		return true;
	end

	module:provides("http", {
		name = "ping_muc";
		default_path = "/ping_muc";
		route = { ["POST /stanzas"] = handle_request };
	});

	local function stop()
		for request in pairs(requests) do respond(request, problem(503, "the module is being unloaded")); end
	end

	return { stop = stop };
end
