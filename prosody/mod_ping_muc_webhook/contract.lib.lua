-- Contract: parses requests to the stanza API, and checks them against what protocol/ permits

local jid = require "util.jid";
local lxp = require "lxp";
local st = require "util.stanza";

local hosts = prosody.hosts;

local xmlns_disco = "http://jabber.org/protocol/disco#info";
local xmlns_muc = "http://jabber.org/protocol/muc";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";
local xmlns_ping = "urn:xmpp:ping";
local xmlns_ping_muc = "urn:ping-muc:0";

local VERSION = "0.1.0"; -- of the contract that this module implements: `info.version` in protocol/openapi.yaml
local MAX_MARKS = 30000; -- in a request: characters that cost a parser time; a thousand notices have 24,000
local MAX_STANZAS = 1000; -- in a request
local MAX_ID, MAX_JID, MAX_REASON = 128, 3071, 1024; -- bytes
local CHUNK = 32768; -- bytes that are parsed before others get the event loop

local function split_prepped(address)
	if not address or #address > MAX_JID then return; end
	local node, remote, resource = jid.prepped_split(address);
	if jid.join(node, remote, resource) == address then return node, remote, resource; end
end

local function check_join(stanza)
	local join = stanza:get_child("join", xmlns_ping_muc);
	local function moment(text) return text and #text <= 16 and text:find("^%d+$") and tonumber(text) or nil; end
	if join then return moment(join.attr.at), moment(join.attr.close); end
end

local function check_notice_x(x)
	local reason, statuses, items = nil, {}, 0;
	for _, tag in ipairs(x.tags) do
		if tag.attr.xmlns ~= xmlns_muc_user then return nil, "a notice's <x> takes no other namespace"; end
		if tag.name == "item" then
			local only = tag.tags[1];
			items = items + 1;
			for name, value in pairs(tag.attr) do
				if name ~= "xmlns" and not ((name == "affiliation" or name == "role") and value == "none") then
					return nil, "a notice's <item> has affiliation and role none and no other attribute";
				end
			end
			if not tag.attr.affiliation or not tag.attr.role or #tag.tags ~= 1 or only.name ~= "reason"
			or only.attr.xmlns ~= xmlns_muc_user or only.tags[1] then
				return nil, "a notice's <item> has affiliation and role none and one <reason>";
			end
			reason = only:get_text() or "";
		elseif tag.name == "status" and tag.attr.code and not tag.tags[1] and not statuses[tag.attr.code] then
			statuses[tag.attr.code] = true;
		else
			return nil, "a notice's <x> takes one <item> and one <status> of each code";
		end
	end
	if items ~= 1 or #x.tags ~= 4 or not (statuses["110"] and statuses["330"] and statuses["333"]) then
		return nil, "a notice has one <item> and the statuses 110, 330 and 333";
	elseif #reason > MAX_REASON then
		return nil, "a notice's reason has at most "..MAX_REASON.." bytes";
	end
	return reason;
end

-- Returns what a stanza asks for; nil and the reason if it is not permitted.
local function check_stanza(stanza, host)
	local attr, first, second = stanza.attr, stanza.tags[1], stanza.tags[2];
	local is_presence = stanza.name == "presence";
	local is_notice, is_reentry = is_presence and attr.type == "unavailable", is_presence and attr.type == nil;
	if not (stanza.name == "iq" and attr.type == "get") and not is_notice and not is_reentry then
		return nil, "only <iq type='get'>, <presence> and <presence type='unavailable'> are taken";
	end
	local full, occupant = attr.from, attr.to;
	if is_notice then full, occupant = occupant, full; end
	local user, user_host, resource = split_prepped(full);
	local node, remote, nick = split_prepped(occupant);
	if not user or user_host ~= host or not resource then
		return nil, "the user must be a normalised full JID of "..host;
	elseif not node or hosts[remote] then
		return nil, "the room must be a normalised JID of a room on a remote host";
	end
	local item = { full = full, occupant = occupant, room = jid.join(node, remote), nick = nick, remote = remote };
	local named = first and (first.attr.xmlns or "").." "..first.name;
	if not is_presence and named == xmlns_disco.." query" then
		if nick or second or first.tags[1] or first.attr.node then
			return nil, "disco#info goes to a room's bare JID, alone and without a node";
		end
		item.kind = "disco";
		return item;
	elseif not is_presence and named ~= xmlns_ping.." ping" then
		return nil, "an <iq> must hold urn:xmpp:ping or disco#info";
	end
	item.at, item.close = check_join(stanza);
	if not item.at or not nick or #stanza.tags ~= 2 then
		return nil, "all but disco#info name an occupant, and its join in <join xmlns='"..xmlns_ping_muc.."' at='...'/>";
	elseif not is_presence then
		if first.tags[1] then return nil, "a ping is empty"; end
		item.kind = "ping";
		return item;
	elseif is_reentry then
		local x = stanza:get_child("x", xmlns_muc);
		if not x or x[1] or next(x.attr, next(x.attr)) then
			return nil, "a re-entry holds an empty <x xmlns='"..xmlns_muc.."'/>";
		end
		item.kind = "reentry";
		return item;
	end
	local x, problem_text = stanza:get_child("x", xmlns_muc_user), "a notice holds muc#user";
	if x then item.reason, problem_text = check_notice_x(x); end
	if not item.reason then return nil, problem_text; end
	item.kind = "notice";
	return item;
end

-- Returns a function that parses the next part of a body. It returns nil while there is more; then the root, or false
-- if the body is not XML. util.xml parses all at once, and gives every element a copy of all prefixes: thousands of
-- each would block the server.
local function xml_reader(body)
	local root, from = { tags = {} }, 1;
	local open = { root };
	-- A document type could define entities that expand without limit.
	local function stop(parser) if not parser:stop() then error("cannot stop"); end end
	local handler = { StartDoctypeDecl = stop; Comment = stop; ProcessingInstruction = stop };
	-- Built here, because util.stanza would check again what the parser has checked, which takes a third of the time.
	function handler.StartElement(_, tag, attr)
		local xmlns, name = tag:match("^(.*)\1(.*)$");
		for i = #attr, 1, -1 do attr[i] = nil; end
		attr.xmlns = xmlns;
		local parent = open[#open];
		local element = setmetatable({ name = name or tag, attr = attr, tags = {} }, st.stanza_mt);
		parent[#parent + 1], parent.tags[#parent.tags + 1], open[#open + 1] = element, element, element;
	end
	function handler.CharacterData(_, text) table.insert(open[#open], text); end
	function handler.EndElement() open[#open] = nil; end
	local parser = lxp.new(handler, "\1");
	return function ()
		local chunk = body:sub(from, from + CHUNK - 1);
		from = from + CHUNK;
		local ok, done = pcall(parser.parse, parser, chunk);
		if not ok or not done then return false; end
		if from <= #body then return nil; end
		ok, done = pcall(parser.parse, parser);
		return ok and done and root.tags[1];
	end
end

local function has_too_many_marks(body)
	local _, marks = body:gsub("[<&=\r\n]", "", MAX_MARKS + 1);
	return marks > MAX_MARKS;
end

-- Returns the stanzas of a request and its time-out; nil and the reason if the whole request is wrong.
local function check_root(root)
	local function in_our_namespace(element)
		return element.attr.xmlns == nil or element.attr.xmlns == "jabber:client";
	end
	if root.name ~= "xmpp" or not in_our_namespace(root) then return nil, "the root must be <xmpp>"; end
	local wait = root.attr.timeout or "";
	wait = #wait <= 3 and wait:find("^%d+$") and tonumber(wait) or 0;
	if wait < 1 or wait > 300 then return nil, "timeout must be a whole number from 1 to 300"; end
	if #root.tags > MAX_STANZAS then return nil, "more than "..MAX_STANZAS.." stanzas"; end
	local ids = {};
	for i, stanza in ipairs(root.tags) do
		local id, name = stanza.attr.id, stanza.name;
		if not in_our_namespace(stanza) or (name ~= "iq" and name ~= "presence" and name ~= "message") then
			return nil, ("child %d is not a stanza"):format(i);
		elseif not id or id == "" or #id > MAX_ID then
			return nil, ("stanza %d needs an id of 1 to %d bytes"):format(i, MAX_ID);
		elseif ids[id] then
			return nil, ("stanza %d has the id of an earlier one"):format(i);
		end
		ids[id] = true;
	end
	return root.tags, wait;
end

return {
	VERSION = VERSION;
	reader = xml_reader, has_too_many_marks = has_too_many_marks, check_root = check_root, check = check_stanza;
};
