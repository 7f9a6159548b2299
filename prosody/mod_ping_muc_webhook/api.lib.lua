-- The stanza API: pings and notices for the receiver

local json = require "util.json";
local st = require "util.stanza";

local utf8_valid, xml_escape = require "util.encodings".utf8.valid, st.xml_escape;
local hosts, full_sessions = prosody.hosts, prosody.full_sessions;
local cut = module:require "text".cut;
local contract = module:require "stanzas";

local xmlns_muc_user = "http://jabber.org/protocol/muc#user";
local xmlns_ping_muc = "urn:ping-muc:0";
local xmlns_stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";

local MAX_BODY = 1024 * 1024; -- bytes of a stanza request
local MAX_REQUESTS = 16; -- stanza requests in flight
local MAX_IN_FLIGHT = 1000; -- queries to one remote host: it reads them at its own pace
local MAX_ID, MAX_ANSWER, MAX_ANSWER_TEXT = 128, 8192, 1024; -- bytes: of a condition; of a room's answer passed as it came; of its text otherwise
local SLICE, TICK = 50, 0.001; -- stanzas dealt with before others get the event loop; seconds until the next

local count_pings = module:measure("pings", "counter");
local count_notices = module:measure("notices", "counter");

return function (state, signature, joins, queries)
	local REPLAY_MEMORY = 2 * signature.TOLERANCE; -- seconds: a timestamp may be ahead, too

	local titles = {
		[400] = "Bad Request"; [401] = "Unauthorized"; [413] = "Content Too Large"; [415] = "Unsupported Media Type";
		[429] = "Too Many Requests"; [503] = "Service Unavailable";
	};

	local function problem(status, detail)
		local later = status == 429 or status == 503;
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

	local function server_error(item, error_type, condition, text, extra)
		local answer = answer_to(item, "error"):tag("error", { type = error_type, by = module.host })
			:tag(condition, { xmlns = xmlns_stanzas }):up();
		if text then answer:text_tag("text", text, { xmlns = xmlns_stanzas }); end
		if extra then answer:tag(extra, { xmlns = xmlns_ping_muc }):up(); end
		return tostring(answer);
	end

	local function room_answer(item, stanza, genuine)
		if stanza.attr.type == "result" then -- nearly every answer, so written as it is, without building it before
			return ("<iq type='result' id='%s' from='%s' to='%s'/>"):format(xml_escape(item.id), xml_escape(item.to), xml_escape(item.from));
		end
		local error_type, condition, text = stanza:get_error();
		if not genuine then
			if condition == "remote-server-not-found" then return server_error(item, "cancel", condition); end
			return server_error(item, "wait", "remote-server-timeout");
		end
		-- What is nested too deep for Lua's stack cannot be written down
		local fine, answer = pcall(function ()
			local copy = st.clone(stanza);
			copy.attr = answer_to(item, "error").attr;
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

	local function is_reachable(remote)
		local session = hosts[module.host].s2sout[remote];
		return session and (session.type == "s2sout" or session.type == "s2sin");
	end

	-- Stanza API: requests

	local requests, request_count = {}, 0;
	local planned = {}; -- remote host → number of queries that requests have yet to send

	-- The queries of a request count from when it is taken: another that comes before they are sent must not fit in, too.
	local function plan(request, remote, more)
		request.planned[remote] = (request.planned[remote] or 0) + more;
		planned[remote] = (planned[remote] or 0) + more;
		if planned[remote] == 0 then planned[remote] = nil; end
	end

	local function close_request(request)
		if not requests[request] then return; end
		requests[request], request_count = nil, request_count - 1;
		if request.timer then request.timer:stop(); end
		for remote, count in pairs(request.planned) do plan(request, remote, -count); end
		for id in pairs(request.waiting) do queries.forget(id); end
	end

	local function respond(request, result)
		close_request(request);
		local response = request.response;
		response.status_code = result.status_code or 200;
		for name, value in pairs(result.headers) do response.headers[name] = value; end
		response:send(result.body);
	end

	local function respond_when_done(request)
		if not requests[request] or request.next <= #request.items or next(request.waiting) then return; end
		respond(request, {
			headers = { content_type = "application/xmpp+xml" };
			body = "<xmpp>"..table.concat(request.answers).."</xmpp>";
		});
	end

	-- The notice is built here from a room's name, a nick that the room confirmed, and a text: nothing else can be said.
	local function deliver_notice(item, session)
		local sent = session.send(st.presence({ type = "unavailable", id = item.id, from = item.occupant, to = item.full })
			:tag("x", { xmlns = xmlns_muc_user })
				:tag("item", { affiliation = "none", role = "none" }):text_tag("reason", item.reason):up()
				:tag("status", { code = "110" }):up():tag("status", { code = "330" }):up():tag("status", { code = "333" }):up());
		if not sent then return server_error(item, "cancel", "recipient-unavailable"); end
		count_notices(1);
		joins.finish(item.full, item.room, true);
	end

	local function handle_item(request, item)
		if item.refused then return server_error(item, "modify", "policy-violation", item.refused); end
		if item.kind ~= "notice" then plan(request, item.remote, -1); end
		local session, join = full_sessions[item.full], joins.find(item.full, item.room);
		if not session then return server_error(item, "cancel", "recipient-unavailable"); end
		if not join or (item.at and (join.at ~= item.at or join.nick ~= item.nick or join.rejoining)) then
			return server_error(item, "cancel", "conflict");
		end
		if item.kind == "notice" then return deliver_notice(item, session); end

		local id, early;
		local function on_answer(stanza, genuine)
			if not id then early = room_answer(item, stanza, genuine); return; end
			request.waiting[id] = nil;
			table.insert(request.answers, room_answer(item, stanza, genuine));
			respond_when_done(request);
		end
		if item.kind == "ping" then
			count_pings(1);
			id = queries.send(item.full, item.occupant, queries.ping, on_answer);
		else
			id = queries.send(item.full, item.room, queries.disco, on_answer);
		end
		-- A local bounce can come back before the sending returns.
		if not early then request.waiting[id] = item; end
		return early;
	end

	local function expire(request)
		for id, item in pairs(request.waiting) do
			local extra = is_reachable(item.remote) and "no-answer" or nil;
			table.insert(request.answers, server_error(item, "wait", "remote-server-timeout", nil, extra));
			queries.forget(id);
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
		for _, item in ipairs(items) do
			if item.kind == "ping" or item.kind == "disco" then plan(request, item.remote, 1); end
		end
		for remote in pairs(request.planned) do
			if planned[remote] + (queries.in_flight[remote] or 0) > MAX_IN_FLIGHT then
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
		if request_count >= MAX_REQUESTS then return problem(503, "too many requests in flight"); end
		if not utf8_valid(body) or body:find("\0", 1, true) then return problem(400, "the body is not UTF-8"); end
		-- What looks like markup counts as such, so that no body within its size limit can stall the event loop
		if contract.has_too_many_marks(body) then return problem(400, "the body has too much markup"); end
		local key = remember_request(headers);
		if not key then return problem(503, "too many requests within "..REPLAY_MEMORY.." seconds"); end

		local request = {
			response = event.response; key = key; read_on = contract.reader(body); items = {}; next = 1; answers = {}; waiting = {}; planned = {};
		};
		requests[request], request_count = true, request_count + 1;
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
