-- Adoption: finds users who were in rooms before the module watched these
--
-- mod_presence knows the addresses to which a session has sent directed presence. The room knows whether it is a
-- room, and whether the session is in it.

local jid = require "util.jid";
local st = require "util.stanza";

local hosts, full_sessions = prosody.hosts, prosody.full_sessions;

local xmlns_disco = "http://jabber.org/protocol/disco#info";
local xmlns_muc = "http://jabber.org/protocol/muc";

local MAX_IN_FLIGHT, TIMEOUT = 50, 60; -- queries to rooms; seconds

-- Error conditions with which a room, or the way to it, does not say that the session is out of it
local NOT_OUT = {
	["service-unavailable"] = true; ["feature-not-implemented"] = true; ["item-not-found"] = true;
	["remote-server-not-found"] = true; ["remote-server-timeout"] = true;
};

-- Whether the answer to a ping, or the lack of one, leaves it possible that the session is in the room
local function is_joined(answer, is_genuine)
	if not is_genuine or answer.attr.type == "result" then return true; end
	local error_type, condition = answer:get_error();
	return error_type == "wait" or NOT_OUT[condition] == true;
end

-- Whether the answer to disco#info comes from a room
local function is_room(answer, is_genuine)
	local info = is_genuine and answer.attr.type == "result" and answer:get_child("query", xmlns_disco);
	for tag in (info or st.stanza("nothing")):childtags() do
		if tag.attr.var == xmlns_muc or (tag.name == "identity" and tag.attr.category == "conference") then return true; end
	end
	return false;
end

return function (joins, queries)

	-- The addresses of other hosts to which sessions have sent presence: room → list of { full, room, occupant }
	local function find_candidates(is_searched)
		local rooms = {};
		local function consider(full, occupant)
			local node, remote, nick = jid.split(occupant);
			local room = jid.join(node, remote);
			if not node or not nick or not joins.is_watched(remote) or not is_searched(remote) then return; end
			if joins.find(full, room) then return; end
			rooms[room] = rooms[room] or {};
			table.insert(rooms[room], { full = full, room = room, occupant = occupant });
		end
		for _, user in pairs(hosts[module.host].sessions or {}) do
			for _, session in pairs(user.sessions) do
				for occupant in pairs(session.directed or {}) do consider(session.full_jid, occupant); end
			end
		end
		return rooms;
	end

	local function is_still_there(candidate)
		local session, join = full_sessions[candidate.full], joins.find(candidate.full, candidate.room);
		return not join and session and session.directed and session.directed[candidate.occupant];
	end

	-- Runs tasks, each of which sends queries, with few queries in flight. Returns a function that adds a task, one that
	-- sends a query, and one that begins.
	local function new_runner()
		local tasks, busy = {}, 0;

		local function run()
			while busy < MAX_IN_FLIGHT and tasks[1] do table.remove(tasks)(); end
		end

		-- `on_answer` is called without an answer if there is none in time.
		local function query(from, to, template, on_answer)
			local id, timer;
			busy = busy + 1;
			local function finish(...)
				timer:stop();
				busy = busy - 1;
				on_answer(...);
				run();
			end
			timer = module:add_timer(TIMEOUT, function ()
				if queries.cancel(id) then finish(); end
			end);
			id = queries.send(from, to, template, finish);
		end

		return function (task) table.insert(tasks, task); end, query, run;
	end

	-- `is_searched`: a function that says whether to search the rooms of a remote host for users
	local function adopt(is_searched)
		local add, query, run = new_runner();

		local function verify(candidate)
			if not is_still_there(candidate) then return; end
			query(candidate.full, candidate.occupant, queries.ping, function (...)
				if is_joined(...) and is_still_there(candidate) then
					joins.record(candidate.full, candidate.room, jid.resource(candidate.occupant));
				end
			end);
		end

		local function explore(candidates)
			local asker;
			for _, candidate in ipairs(candidates) do asker = asker or is_still_there(candidate) and candidate; end
			if not asker then return; end
			query(asker.full, asker.room, queries.disco, function (...)
				if not is_room(...) then return; end
				for _, candidate in ipairs(candidates) do add(function () verify(candidate); end); end
			end);
		end

		for _, candidates in pairs(find_candidates(is_searched)) do add(function () explore(candidates); end); end
		run();
	end

	return {
		adopt = adopt;
		adopt_all = function () adopt(function () return true; end); end;
	};
end
