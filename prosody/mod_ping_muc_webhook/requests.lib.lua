-- Requests to the stanza API, from the body to the response
--
-- A request is read, examined as a whole, and carried out stanza by stanza, in slices between which others get the
-- event loop. Then it waits for the rooms' answers, and is answered when all have arrived or its time-out has passed.

local contract = module:require "contract";

local SLICE, TICK = 50, 0.001; -- stanzas in one slice; seconds until the next one

local function is_query(item)
	return item.kind ~= nil and item.kind ~= "notice";
end

return function (settings, sender, limits, actions, doubts, replays, responses)
	local requests = {}; -- set of requests that are not answered yet

	-- { response, key, read_on, stanzas, timeout, items, next, answers, waiting, planned, rooms, is_single, is_waiting,
	-- is_unanswered, timer }. `waiting`: id → item; `planned`: remote host → number of queries that are still to be sent;
	-- `is_unanswered`: a room has not answered its ping.
	local Request = {};
	Request.__index = Request;

	local function close(request)
		if not requests[request] then return; end
		requests[request] = nil;
		if request.timer then request.timer:stop(); end
		limits.finish(request);
		for id, item in pairs(request.waiting) do
			actions.cancel(id, item);
			limits.count_in_flight(-1);
		end
	end

	local function respond(request, reply)
		close(request);
		local response = request.response;
		response.status_code = reply.status_code or 200;
		for name, value in pairs(reply.headers) do response.headers[name] = value; end
		response:send(reply.body);
	end

	-- What is known about this host. The settings may change; names of hosts need no escaping.
	local function start_tag()
		local about = "<xmpp host='%s' version='%s' dry_run='%s' webhooks='%s' delay='%d' timeout='%d' patience='%d'>";
		local webhooks = sender.is_failing() and "failing" or sender.accepted_at() and "accepted" or "none";
		return about:format(module.host, contract.VERSION, tostring(settings.dry_run), webhooks,
			settings.delay, settings.timeout, settings.patience);
	end

	local function respond_when_done(request)
		if not requests[request] or request.next <= #request.items or next(request.waiting) then return; end
		responses.note_success();
		doubts.pings_finished(request.rooms, not request.is_unanswered);
		respond(request, {
			headers = { content_type = "application/xmpp+xml" };
			body = start_tag()..table.concat(request.answers).."</xmpp>";
		});
	end

	-- Nothing of the request was sent. So a repetition of it is not a replay.
	local function refuse(request, status, detail)
		replays.drop(request.key);
		respond(request, responses.problem(status, detail));
	end

	-- A room's answer to this item is awaited.
	function Request:await(id, item)
		self.waiting[id] = item;
		limits.count_in_flight(1);
	end

	-- It is no longer awaited. `answer`: nil if something else is awaited in its place
	function Request:settle(id, answer)
		self.waiting[id] = nil;
		limits.count_in_flight(-1);
		table.insert(self.answers, answer);
		respond_when_done(self);
	end

	local function expire(request)
		request.is_unanswered = true;
		for id, item in pairs(request.waiting) do
			table.insert(request.answers, actions.expire(id, item));
			limits.count_in_flight(-1);
		end
		request.waiting = {};
		respond_when_done(request);
	end

	local function later(step, request)
		module:add_timer(TICK, function () step(request); end);
	end

	local function carry_out(request)
		if not requests[request] then return; end
		local last = math.min(request.next + SLICE - 1, #request.items);
		for i = request.next, last do
			local item = request.items[i];
			if is_query(item) then limits.plan(request, item.remote, -1); end
			table.insert(request.answers, (actions.perform(request, item)));
		end
		request.next = last + 1;
		if request.next <= #request.items then
			later(carry_out, request);
			return;
		end
		-- The time-out begins here, so that a long request that takes time to send does not look like silence of the rooms.
		if next(request.waiting) then
			request.is_waiting, request.stanzas = true, nil;
			limits.start_waiting(request);
			request.timer = module:add_timer(request.timeout, function () expire(request); end);
		end
		respond_when_done(request);
	end

	local function admit(request)
		local count, rooms = 0, {};
		for _, item in ipairs(request.items) do
			if is_query(item) then
				limits.plan(request, item.remote, 1);
				count = count + 1;
				rooms[item.room] = true;
			end
		end
		request.rooms, request.is_single = rooms, count > 0 and next(rooms, (next(rooms))) == nil;
		local status, detail = limits.refusal(request, count);
		if status then return refuse(request, status, detail); end
		carry_out(request);
	end

	-- The whole request is examined before any part of it is sent.
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
		if last < #stanzas then return later(examine, request); end
		admit(request);
	end

	local function read(request)
		if not requests[request] then return; end
		local root = request.read_on();
		if root == nil then return later(read, request); end
		local stanzas, timeout = nil, "the body is not XML as XMPP has it";
		if root then stanzas, timeout = contract.check_root(root); end
		if not stanzas then return refuse(request, 400, timeout); end
		request.stanzas, request.timeout = stanzas, timeout;
		examine(request);
	end

	-- Takes a request. `key`: by which a replay of it is recognised
	local function begin(response, body, key)
		local request = setmetatable({
			response = response; key = key; read_on = contract.reader(body);
			items = {}; next = 1; answers = {}; waiting = {}; planned = {};
		}, Request);
		requests[request] = true;
		limits.start_reading();
		response.on_destroy = function () close(request); end;
		read(request);
	end

	local function stop()
		for request in pairs(requests) do respond(request, responses.problem(503, "the module is being unloaded")); end
	end

	return { begin = begin, stop = stop, can_begin = limits.can_read };
end
