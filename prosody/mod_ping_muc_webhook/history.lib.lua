-- What a session has heard of a room: as much as finds out what it missed once it is back
--
-- For each join, the newest lines that the room sent the session: when, and what names them. No text is kept.

local time = require "util.time";
local parse_datetime = require "util.datetime".parse;

local monotonic, time_now = time.monotonic, time.now;

local xmlns_delay = "urn:xmpp:delay";
local xmlns_eme = "urn:xmpp:eme:0";
local xmlns_hints = "urn:xmpp:hints";
local xmlns_sid = "urn:xmpp:sid:0";

-- The history is asked for from somewhat before the last line on, as the question takes its time to the room, and so does a
-- line on its way here. What the session had of that is known by name, and held back.
local KEEP = 10; -- seconds before the newest line from which on the history is asked for
local ROUNDED = 3; -- seconds by which it may begin earlier: whole seconds here, and in the room's clock
local MAX_LINES = 20; -- that are known: as many as rooms keep unless configured otherwise
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

	-- The room's own name of a line (XEP-0359), if it gives any; and one of what else does not change when it is sent again
	local function names_of(room, stanza)
		local own;
		for tag in stanza:childtags("stanza-id", xmlns_sid) do
			if tag.attr.by == room and tag.attr.id then own = "id "..tag.attr.id:sub(1, MAX_NAME); end
		end
		local body, nick = stanza:get_child_text("body") or "", (stanza.attr.from or ""):sub(#room + 2);
		local other = ("%s\0%d\0%s"):format((stanza.attr.id or body):sub(1, MAX_NAME), #body, nick);
		return own, other;
	end

	-- Lines are kept as moment, name, moment, name, …, the oldest first.
	local function heard(join, room, stanza, is_delayed)
		if not settings.reenter or not is_line(stanza) then return; end
		local now = monotonic();
		local moment = now;
		if is_delayed then
			-- Where it is of before 1970, the parser raises an error. An occupant may have chosen it.
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

	-- The name of a line that the session had; nil where it is new.
	local function had(join, room, stanza)
		local own, other = names_of(room, stanza);
		for i = 2, #(join.lines or {}), 2 do
			local name = join.lines[i];
			if name == own or name == other then return name; end
		end
	end

	-- How many seconds back the room's history is to reach, so that it begins before the first line that was missed.
	local function seconds(join)
		local lines = join.lines;
		local from = math.max(join.entered or 0, state.listening or 0);
		-- There may have been earlier ones that are not known any more, and would come again.
		if lines and #lines >= 2 * MAX_LINES then from = math.min(lines[1] + ROUNDED, lines[#lines - 1]);
		elseif lines and lines[1] then from = lines[#lines - 1] - KEEP; end
		return math.max(1, math.ceil(monotonic() - from) + 1);
	end

	local function newest(join)
		return join.lines and join.lines[#join.lines];
	end

	-- The room has sent lines, and not the last one that the session had: some before them are missing.
	local function is_missed(entry)
		return entry.known ~= nil and entry.lines > 0 and not entry.came_back;
	end

	-- A session enters by itself, and has what its client asks for.
	local function begin(join)
		join.entered, join.lines = monotonic(), nil;
	end

	-- What was sent while nobody listened is not known.
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
