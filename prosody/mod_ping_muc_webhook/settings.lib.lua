-- Settings: read from the configuration and checked
--
-- Not with the typed getters (get_option_integer and others): where a value is wrong, they log that and take the
-- default. Here a wrong value must prevent the load, or keep the previous settings, and the message must say what to
-- set.

local encodings = require "util.encodings";
local parse_url = require "socket.url".parse;

local base64, nameprep = encodings.base64, encodings.stringprep.nameprep;

local function refuse(name, need, got, example)
	error(("%s must be %s, but %s. For example: %s = %s"):format(name, need, got, name, example), 0);
end

local function describe(value)
	if value == nil then return "it is not set"; end
	if type(value) == "table" then return "it is a table"; end
	return ("it is the %s %s"):format(type(value), type(value) == "string" and ("%q"):format(value) or tostring(value));
end

local function number_setting(name, default, min, max, what)
	local value = module:get_option(name);
	if value == nil then return default; end
	if type(value) ~= "number" or value % 1 ~= 0 or value < min or value > max then
		refuse(name, ("a whole number of %s from %d to %d"):format(what, min, max), describe(value), default);
	end
	return math.floor(value);
end

local function seconds_setting(name, default, min, max)
	return number_setting(name, default, min, max, "seconds");
end

-- 0, or from min to max
local function interval_setting(name, default, min, max)
	if module:get_option(name) == 0 then return 0; end
	return number_setting(name, default, min, max, "seconds (or 0 for never)");
end

local function share_setting(name, default)
	local value = module:get_option(name);
	if value == nil then return default; end
	if type(value) ~= "number" or not (value >= 0 and value <= 1) then
		refuse(name, "a number from 0 to 1", describe(value), default);
	end
	return value;
end

local function is_loopback(name)
	if name == "localhost" or name == "::1" then return true; end
	local a, b, c = name:match("^127%.(%d+)%.(%d+)%.(%d+)$");
	return a and tonumber(a) < 256 and tonumber(b) < 256 and tonumber(c) < 256;
end

local function url_setting(name)
	local value, example = module:get_option(name), '"https://example.execute-api.us-east-1.amazonaws.com/webhooks"';
	local url = type(value) == "string" and value:match("^[\33-\126]+$") and parse_url(value);
	if not url or not url.host or (url.scheme ~= "https" and url.scheme ~= "http") then
		refuse(name, "an https URL", describe(value), example);
	elseif url.scheme == "http" and not is_loopback(url.host:gsub("[%[%]]", "")) then
		refuse(name, "an https URL, because plain http is for loopback addresses only", describe(value), example);
	end
	return value;
end

local function secrets_setting(name)
	local value = module:get_option(name);
	local need = '"whsec_" and the base64 of 24 to 64 random bytes, or a list of two such strings while rotating';
	-- The value must never reach a log, even if it is malformed.
	local function refuse_secret(got)
		refuse(name, need, got, '"whsec_..." with ... from: openssl rand -base64 32');
	end
	if value == nil then refuse_secret("it is not set"); end
	local list = type(value) == "table" and value or { value };
	if #list < 1 or #list > 2 then refuse_secret(("it is a list of %d"):format(#list)); end
	local keys = {};
	for i, secret in ipairs(list) do
		if type(secret) ~= "string" then refuse_secret("it holds a "..type(secret)); end
		local text = secret:match("^whsec_([%w+/]+)=?=?$");
		local key = text and base64.decode(text..("="):rep(-#text % 4));
		if not key or base64.encode(key):gsub("=", "") ~= text then
			refuse_secret(("the one at %d does not have this form"):format(i));
		elseif #key < 24 or #key > 64 then
			refuse_secret(("the one at %d holds %d bytes"):format(i, #key));
		end
		keys[i] = key;
	end
	return keys;
end

local function hosts_setting(name)
	local value, names = module:get_option(name, {}), {};
	for key, remote in pairs(type(value) == "table" and value or { value }) do
		local prepped = type(remote) == "string" and not remote:find("[@/%s]") and nameprep(remote);
		if type(key) ~= "number" or not prepped or prepped == "" then
			refuse(name, "a list of host names", "one entry is wrong: "..describe(remote), '{ "irc.example.org" }');
		end
		names[prepped] = true;
	end
	return names;
end

local function boolean_setting(name, default)
	local value = module:get_option(name);
	if value == nil then return default; end
	if type(value) ~= "boolean" then refuse(name, "true or false", describe(value), "true"); end
	return value;
end

-- All settings. If one is wrong, raises an error that says what to set.
local function read()
	return {
		webhook_url = url_setting("ping_muc_webhook_url");
		secrets = secrets_setting("ping_muc_secret");
		delay = seconds_setting("ping_muc_delay", 60, 1, 86400);
		timeout = seconds_setting("ping_muc_timeout", 60, 1, 300);
		patience = seconds_setting("ping_muc_patience", 300, 0, 86400);
		refresh = seconds_setting("ping_muc_refresh", 86400, 1, 259200);
		silence = interval_setting("ping_muc_silence", 21600, 10, 604800);
		heartbeat = interval_setting("ping_muc_heartbeat", 300, 60, 600); -- after 900 seconds the host counts as silent
		notice_limit = number_setting("ping_muc_notice_limit", 0, 0, 1000000, "notices (or 0 for no limit)");
		notice_share = share_setting("ping_muc_notice_share", 0.5);
		excluded = hosts_setting("ping_muc_exclude");
		dry_run = boolean_setting("ping_muc_dry_run", false);
		reenter = boolean_setting("ping_muc_reenter", false);
		reenter_limit = number_setting("ping_muc_reenter_limit", 500, 1, 2000, "occupants"); -- rosters store 2000 at most
		reenter_occupants = boolean_setting("ping_muc_reenter_occupants", true);
	};
end

return { read = read };
