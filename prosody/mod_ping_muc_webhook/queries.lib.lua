-- Queries to rooms: sent as a session, answered to whoever sent them; the client sees nothing

local jid = require "util.jid";
local new_id = require "util.id";
local st = require "util.stanza";

local xmlns_disco = "http://jabber.org/protocol/disco#info";
local xmlns_ping = "urn:xmpp:ping";

local pending = {}; -- id on the wire → { from, to, remote, answered }
local in_flight = {}; -- remote host → number of them, and of re-entries

-- Whether an iq with this id is one of ours that waits for its answer
local function is_ours(id)
	return pending[id] ~= nil;
end

-- Something that a remote host is to answer goes on its way, or is waited for no longer.
local function begun(remote) in_flight[remote] = (in_flight[remote] or 0) + 1; end
local function done(remote) in_flight[remote] = in_flight[remote] > 1 and in_flight[remote] - 1 or nil; end

-- Waits for the answer no longer. Returns whether it had been waited for.
local function forget(id)
	local query = pending[id];
	if not query then return false; end
	pending[id] = nil;
	done(query.remote);
	return true;
end

-- Cloned for each query: addresses and ids that were checked before would be checked again when it is built anew.
local ping_query = st.stanza("iq", { type = "get" }):tag("ping", { xmlns = xmlns_ping }):reset();
local disco_query = st.stanza("iq", { type = "get" }):tag("query", { xmlns = xmlns_disco }):reset();

-- The id is not to be guessed: the answer's sender is not the only one who can reach the user with an iq.
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
	forget(stanza.attr.id);
	-- What the server itself bounces comes from a dummy s2s session, or from the host.
	query.answered(stanza, (origin.type == "s2sin" or origin.type == "s2sout") and not origin.dummy);
	return true;
end, 1000);

return {
	send = send, forget = forget, ping = ping_query, disco = disco_query, in_flight = in_flight, is_ours = is_ours;
	begun = begun, done = done;
};
