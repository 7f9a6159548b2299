-- History: which messages a session has had from a room, so that after a re-entry it gets those that it missed, and no
-- message twice
--
-- For each join, the newest lines: the messages that rooms send again. Of each, when it arrived, and a name that
-- identifies it. The text is not stored, unless a message has no id (see names_of).

local time = require "util.time";
local parse_datetime = require "util.datetime".parse;

local monotonic, time_now = time.monotonic, time.now;

local xmlns_delay = "urn:xmpp:delay";
local xmlns_eme = "urn:xmpp:eme:0";
local xmlns_hints = "urn:xmpp:hints";
local xmlns_sid = "urn:xmpp:sid:0";

-- The requested history begins somewhat before the newest line, because the request takes time to reach the room, and
-- so does a line to arrive here. Lines that the session had are known by name, and held back.
local KEEP = 10; -- seconds before the newest line at which the requested history begins
local ROUNDED = 3; -- seconds by which it may begin earlier: whole seconds here, and in the room's clock
local MAX_LINES = 20; -- of one join: as many as rooms keep unless configured otherwise
local MAX_NAME = 128; -- bytes

local count_gaps = module:measure("history_gaps", "counter");

return function (settings, state)
	-- Whether a message is one of those that rooms send again
	local function is_line(stanza)
		return (stanza:get_child("body") ~= nil or stanza:get_child("encryption", xmlns_eme) ~= nil)
			and not stanza:get_child("no-store", xmlns_hints) and not stanza:get_child("no-permanent-store", xmlns_hints);
	end

	-- Whether a message is the subject, which ends the history (XEP-0045 §7.2.15)
	local function is_subject(stanza)
		return stanza:get_child("subject") ~= nil and not is_line(stanza);
	end

	-- The room's own id of a line (XEP-0359), if it has one; and a name made of what else does not change when it is
	-- sent again
	local function names_of(room, stanza)
		local own;
		for tag in stanza:childtags("stanza-id", xmlns_sid) do
			if tag.attr.by == room and tag.attr.id then own = "id "..tag.attr.id:sub(1, MAX_NAME); end
		end
		local body, nick = stanza:get_child_text("body") or "", (stanza.attr.from or ""):sub(#room + 2);
		local other = ("%s\0%d\0%s"):format((stanza.attr.id or body):sub(1, MAX_NAME), #body, nick);
		return own, other;
	end

	-- Lines are stored as moment, name, moment, name, …, the oldest first.
	local function heard(join, room, stanza, is_delayed)
		if not settings.reenter or not is_line(stanza) then return; end
		local now = monotonic();
		local moment = now;
		if is_delayed then
			-- The parser raises an error for a time before 1970. An occupant may have chosen it.
			local fine, stamp = pcall(parse_datetime, stanza:get_child("delay", xmlns_delay).attr.stamp or "");
			if fine and stamp then moment = now - math.max(0, time_now() - stamp); end
		end
		local own, other = names_of(room, stanza);
		local lines = join.lines or {};
		join.lines = lines;
		moment = math.max(moment, lines[#lines - 1] or moment); -- in the order in which they came
		lines[#lines + 1], lines[#lines + 2] = moment, own or other;
		local drop = 0;
		while #lines - drop > 2 * MAX_LINES or lines[drop + 1] < moment - KEEP - ROUNDED do drop = drop + 2; end
		if drop > 0 then
			local left = #lines - drop;
			for i = 1, #lines do lines[i] = i <= left and lines[i + drop] or nil; end
		end
	end

	-- The name of a line that the session had; nil if it is new
	local function had(join, room, stanza)
		local own, other = names_of(room, stanza);
		for i = 2, #(join.lines or {}), 2 do
			local name = join.lines[i];
			if name == own or name == other then return name; end
		end
	end

	-- How many seconds back the room's history must reach, so that it begins before the first line that was missed
	local function seconds(join)
		local lines = join.lines;
		local from = math.max(join.entered or 0, state.listening or 0);
		if lines and #lines >= 2 * MAX_LINES then
			-- There may have been earlier lines, which are no longer stored and would come twice.
			from = math.min(lines[1] + ROUNDED, lines[#lines - 1]);
		elseif lines and lines[1] then
			from = lines[#lines - 1] - KEEP;
		end
		return math.max(1, math.ceil(monotonic() - from) + 1);
	end

	local function newest(join)
		return join.lines and join.lines[#join.lines];
	end

	-- The room has sent lines, but not the newest one that the session had. So some lines are missing.
	local function is_missed(entry)
		return entry.known ~= nil and entry.lines > 0 and not entry.came_back;
	end

	-- A session has entered by itself, and gets the history that its client requests.
	local function begin(join)
		join.entered, join.lines = monotonic(), nil;
	end

	-- Lines that arrived while re-entry was off are not known.
	local function follow_settings()
		state.listening = settings.reenter and (state.listening or monotonic()) or nil;
	end
	follow_settings();

	return {
		heard = heard, had = had, is_line = is_line, is_subject = is_subject, seconds = seconds, newest = newest;
		is_missed = is_missed, begin = begin, follow_settings = follow_settings;
		count_gap = function () count_gaps(1); end;
	};
end
