-- Queries to rooms: sent as a session. The answer goes to the part that sent the query, and the client does not see it.

local jid = require "util.jid";
local new_id = require "util.id";
local st = require "util.stanza";

local xmlns_disco = "http://jabber.org/protocol/disco#info";
local xmlns_ping = "urn:xmpp:ping";

local pending = {}; -- id on the wire → { from, to, remote, answered }
local in_flight = {}; -- remote host → number of them, and of re-entries

-- Whether an iq with this id is one of our queries that are not answered yet
local function is_ours(id)
	return pending[id] ~= nil;
end

-- Something that a remote host must answer is sent, or is no longer awaited.
local function begun(remote) in_flight[remote] = (in_flight[remote] or 0) + 1; end
local function done(remote) in_flight[remote] = in_flight[remote] > 1 and in_flight[remote] - 1 or nil; end

-- The answer is no longer awaited. Returns whether it was.
local function cancel(id)
	local query = pending[id];
	if not query then return false; end
	pending[id] = nil;
	done(query.remote);
	return true;
end

-- Cloned for each query, because st.stanza would check addresses and ids that have been checked before.
local ping_query = st.stanza("iq", { type = "get" }):tag("ping", { xmlns = xmlns_ping }):reset();
local disco_query = st.stanza("iq", { type = "get" }):tag("query", { xmlns = xmlns_disco }):reset();

-- The id must be hard to guess, because others than the room can send an iq to the user, too.
local function send(from, to, template, on_answer)
	local id, remote = new_id.medium(), jid.host(to);
	pending[id] = { from = from, to = to, remote = remote, answered = on_answer };
	begun(remote);
	local stanza = st.clone(template);
	stanza.attr.id, stanza.attr.from, stanza.attr.to = id, from, to;
	module:send(stanza);
	return id;
end

module:hook("iq/full", function (event)
	local stanza, origin = event.stanza, event.origin;
	local query = pending[stanza.attr.id];
	if not query or (stanza.attr.type ~= "result" and stanza.attr.type ~= "error")
	or stanza.attr.from ~= query.to or stanza.attr.to ~= query.from then return; end
	cancel(stanza.attr.id);
	-- What this server itself bounces comes from a dummy s2s session, or from the host.
	query.answered(stanza, (origin.type == "s2sin" or origin.type == "s2sout") and not origin.dummy);
	return true;
end, 1000);

return {
	send = send, cancel = cancel, ping = ping_query, disco = disco_query, in_flight = in_flight, is_ours = is_ours;
	begun = begun, done = done;
};
