-- Notices: the presence that informs a client that it is out of a room (rule 8 in docs/rules.md)

local st = require "util.stanza";

local xmlns_muc_user = "http://jabber.org/protocol/muc#user";

local count_notices = module:measure("notices", "counter");

return function (joins, reentry, answers)
	local sending; -- the notice that is being sent at this moment

	-- An inactive client (XEP-0352) gets it at once, and not with the next important stanza.
	module:hook("csi-is-stanza-important", function (event)
		local attr = st.is_stanza(event.stanza) and event.stanza.attr;
		if sending and attr and attr.id == sending.id and attr.from == sending.occupant then
			event.reason = "notice";
			return true;
		end
	end, 1);

	-- Sends a notice, and ends its join. Returns an error if it is not sent.
	-- It is built from the room's name, a nick that the room confirmed, and a text. A request cannot make it say more.
	local function deliver(item, session, join)
		if joins.is_entering(join) or reentry.is_under_way(join) then
			return answers.server_error(item, "cancel", "conflict", nil, "rejoining");
		end
		sending = item;
		local sent = session.send(st.presence({
			type = "unavailable", id = item.id, from = item.occupant, to = item.full;
		}):tag("x", { xmlns = xmlns_muc_user })
			:tag("item", { affiliation = "none", role = "none" }):text_tag("reason", item.reason):up()
			:tag("status", { code = "110" }):up():tag("status", { code = "330" }):up():tag("status", { code = "333" }):up());
		sending = nil;
		if not sent then return answers.server_error(item, "cancel", "recipient-unavailable"); end
		module:log("debug", "Notice to %s: out of %s", item.full, item.room);
		count_notices(1);
		joins.finish(item.full, item.room, "notice");
	end

	return { deliver = deliver };
end
