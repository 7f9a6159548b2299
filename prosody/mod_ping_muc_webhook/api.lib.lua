-- The stanza API: POST /ping_muc/stanzas, for the receiver's pings, re-entries and notices
--
-- Here is what a request must be before any of it is read: signed, new, of the right type and size.

local utf8_valid = require "util.encodings".utf8.valid;
local contract = module:require "contract";

local MAX_BODY = 1024 * 1024; -- bytes

return function (signature, replays, responses, requests)
	local problem = responses.problem;

	local function handle_request(event)
		local headers, body = event.request.headers, event.request.body or "";
		if #body > MAX_BODY then return problem(413, "the body has more than "..MAX_BODY.." bytes"); end
		local unsigned = signature.check(headers, body);
		if unsigned then return problem(401, unsigned); end
		if replays.is_replay(headers) then
			return problem(401, "this request was replayed: a retry takes a new webhook-timestamp");
		end
		if not (headers.content_type or ""):lower():find("^application/xmpp%+xml%f[%s;%z]") then
			return problem(415, "the content type must be application/xmpp+xml");
		end
		if not requests.can_begin() then return problem(503, "too many requests in flight"); end
		if not utf8_valid(body) or body:find("\0", 1, true) then return problem(400, "the body is not UTF-8"); end
		-- All that looks like markup counts, so that no body within the size limit can block the event loop.
		if contract.has_too_many_marks(body) then return problem(400, "the body has too much markup"); end
		local key = replays.remember(headers);
		if not key then return problem(503, "too many requests within "..replays.MEMORY.." seconds"); end
		requests.begin(event.response, body, key);
		return true;
	end

	module:provides("http", {
		name = "ping_muc";
		default_path = "/ping_muc";
		route = { ["POST /stanzas"] = handle_request };
	});
end
