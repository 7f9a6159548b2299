-- Signatures of both directions, as Standard Webhooks has them

local encodings = require "util.encodings";
local hashes = require "util.hashes";

local base64 = encodings.base64;

local TOLERANCE = 300; -- seconds by which a signed timestamp may differ from our clock

return function (settings)
	local function sign(id, timestamp, body)
		local list = {};
		for i, key in ipairs(settings.secrets) do
			list[i] = "v1,"..base64.encode(hashes.hmac_sha256(key, id.."."..timestamp.."."..body));
		end
		return list;
	end

	-- Returns nil if the request is signed with a live secret and its timestamp is within the tolerance; otherwise what is
	-- wrong.
	local function check(headers, body)
		local id, timestamp, header = headers.webhook_id, headers.webhook_timestamp, headers.webhook_signature;
		if not id or not timestamp or not header then
			return "webhook-id, webhook-timestamp and webhook-signature are required";
		elseif not id:find("^[\32-\126]+$") or #id > 255 then
			return "webhook-id must be 1 to 255 printable ASCII characters";
		elseif not timestamp:find("^%d+$") or #timestamp > 10 then
			return "webhook-timestamp must be whole seconds since the epoch";
		end
		local match = false;
		for _, expected in ipairs(sign(id, timestamp, body)) do
			for given in header:gmatch("%S+") do
				if hashes.equals(expected, given) then match = true; end
			end
		end
		if not match then return "webhook-signature matches no live secret"; end
		local ahead = tonumber(timestamp) - os.time();
		if math.abs(ahead) > TOLERANCE then
			return ("webhook-timestamp is %d seconds %s this server's clock, %d are tolerated: check both clocks")
				:format(math.abs(ahead), ahead > 0 and "ahead of" or "behind", TOLERANCE);
		end
	end

	return { sign = sign, check = check, TOLERANCE = TOLERANCE };
end
