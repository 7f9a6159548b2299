-- Answers of the stanza API: what a room answered, or what this server has to say in its place

local st = require "util.stanza";

local cut = module:require "text".cut;
local xml_escape = st.xml_escape;
local hosts = prosody.hosts;

local xmlns_muc_user = "http://jabber.org/protocol/muc#user";
local xmlns_ping_muc = "urn:ping-muc:0";
local xmlns_stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";

-- Bytes: of a condition; of a room's answer that is passed on unchanged; otherwise of its text
local MAX_ID, MAX_ANSWER, MAX_ANSWER_TEXT = 128, 8192, 1024;

local count_proofs = module:measure("proofs", "counter"); -- pings answered by what the room had sent the session

local function answer_to(item, answer_type)
	return st.stanza(item.name, { type = answer_type, id = item.id, from = item.to, to = item.from });
end

-- Almost every answer is a result. So it is formatted as text, and no stanza is built for it.
local function result(item, content)
	return ("<iq type='result' id='%s' from='%s' to='%s'%s"):format(xml_escape(item.id), xml_escape(item.to),
		xml_escape(item.from), content and ">"..content.."</iq>" or "/>");
end

-- The session is in the room. `is_missed`: messages are missing from the history that it got.
local function entered(item, is_missed)
	local extra = is_missed and "<reentry xmlns='"..xmlns_ping_muc.."' missed='yes'/>" or "";
	return ("<presence id='%s' from='%s' to='%s'><x xmlns='%s'><status code='110'/></x>%s</presence>"):format(
		xml_escape(item.id), xml_escape(item.to), xml_escape(item.from), xmlns_muc_user, extra);
end

-- A room's error, under the id and the addresses of the request. Raises an error if the stanza is nested too deep for
-- Lua's stack.
local function copy_error(item, stanza)
	local copy = st.clone(stanza);
	copy.attr = answer_to(item, "error").attr;
	-- Some rooms return what was sent to them. The session's presence is not for the receiver.
	if item.kind == "reentry" then
		copy:maptags(function (tag) return tag.name == "error" and tag or nil; end);
	end
	for _, tag in ipairs(copy.tags) do
		if tag.name == "error" and tag.attr.by == module.host then tag.attr.by = nil; end
	end
	return tostring(copy);
end

local function room_error(item, stanza)
	local fine, answer = pcall(copy_error, item, stanza);
	if fine and #answer <= MAX_ANSWER then return answer; end
	local error_type, condition, text = stanza:get_error();
	if not condition or #condition > MAX_ID then condition = "undefined-condition"; end
	if not error_type or #error_type > MAX_ID then error_type = "cancel"; end
	local copy = answer_to(item, "error"):tag("error", { type = error_type })
		:tag(condition, { xmlns = xmlns_stanzas }):up();
	if text then copy:text_tag("text", cut(text, MAX_ANSWER_TEXT), { xmlns = xmlns_stanzas }); end
	return tostring(copy);
end

return function (joins, closes)
	-- This server's own error. `extra`: an element in our namespace, and its attributes
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

	-- The answer of a proof: the room has sent the session what only its occupants get, over a stream that began after
	-- the close in question. Otherwise nil. An answer of the room itself makes a proof unnecessary.
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

	-- A stream that broke meanwhile may have lost the answer. If there is no stream, this server itself knows that the
	-- host cannot be reached. Otherwise the room did not answer, and `heard` says whether anything else came from there.
	local function no_answer(item)
		local is_broken = closes.count(item.remote) ~= item.breaks;
		if not is_broken and not is_reachable(item.remote) then
			return server_error(item, "wait", "remote-server-timeout");
		end
		local is_heard = (closes.heard(item.remote) or 0) > item.sent;
		return server_error(item, "wait", "remote-server-timeout", nil, "no-answer", {
			streams = is_broken and "broken" or "kept", heard = is_heard and "true" or "false";
		});
	end

	-- This server could not deliver the stanza.
	local function bounced(item, stanza)
		local proven = proof(item);
		if proven then return proven; end
		-- mod_smacks returns what was not acknowledged when a stream ends. That says nothing about the host.
		if closes.count(item.remote) ~= item.breaks then return no_answer(item); end
		local _, condition = stanza:get_error();
		if condition == "remote-server-not-found" then return server_error(item, "cancel", condition); end
		return server_error(item, "wait", "remote-server-timeout");
	end

	-- `is_genuine`: from the remote host, not made by this server
	local function room_answer(item, stanza, is_genuine)
		if stanza.attr.type == "result" then return result(item); end
		if not is_genuine then return bounced(item, stanza); end
		return room_error(item, stanza);
	end

	-- `outcome` and what follows it are the ones of reentry.enter.
	local function reentry_answer(item, outcome, ...)
		if outcome == "entered" then return entered(item, ...); end
		if outcome == "error" then return room_answer(item, ...); end
		if outcome == "new" then return server_error(item, "cancel", "item-not-found"); end
		if outcome == "gone" then return server_error(item, "cancel", "recipient-unavailable"); end
		return server_error(item, "cancel", "conflict", nil, outcome == "rejoining" and outcome or nil);
	end

	return {
		server_error = server_error, proof = proof, no_answer = no_answer, entered = entered;
		room_answer = room_answer, reentry_answer = reentry_answer;
	};
end
