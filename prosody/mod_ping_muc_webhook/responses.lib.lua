-- HTTP responses of the stanza API: problem documents (RFC 9457), the log of refusals, and the metric of both

local json = require "util.json";
local time_now = require "util.time".now;

local WARN_AGAIN = 60; -- seconds after which a refusal with the same status may be a warning again

local count_requests =
	module:metric("counter", "requests", "", "Requests to the stanza API by HTTP status", { "status" });

local titles = {
	[400] = "Bad Request"; [401] = "Unauthorized"; [413] = "Content Too Large"; [415] = "Unsupported Media Type";
	[429] = "Too Many Requests"; [503] = "Service Unavailable";
};

local wrong_request = "The sender is not the receiver of our webhooks, or its release does not fit this one";
local busy = "The receiver tries again by itself. If this continues, look for a remote host that answers slowly";
local advice = {
	[400] = wrong_request; [413] = wrong_request; [415] = wrong_request; [429] = busy; [503] = busy;
	[401] = "Check that the receiver knows the ping_muc_secret, and that the clocks of both sides are right";
};

local last_status; -- of the request before
local warned = {}; -- status → when the last warning of it was logged

-- The first of several equal refusals is a warning for the operator. The others are for debugging.
local function note(status, detail)
	count_requests:with_labels(("%d"):format(status)):add(1);
	if status ~= 200 then
		local is_first = last_status ~= status and time_now() - (warned[status] or -math.huge) >= WARN_AGAIN;
		if is_first then warned[status] = time_now(); end
		module:log(is_first and "warn" or "debug", "A request to the stanza API was refused (%d: %s). %s",
			status, detail, advice[status]);
	end
	last_status = status;
end

local function note_success() note(200); end

local function problem(status, detail)
	local is_later = status == 429 or status == 503;
	note(status, detail);
	return {
		status_code = status;
		headers = { content_type = "application/problem+json"; retry_after = is_later and "1" or nil };
		body = json.encode({ type = "about:blank", title = titles[status], status = status, detail = detail });
	};
end

return { note_success = note_success, problem = problem };
