-- Commands: what an operator can ask this host's module, or have it do
--
-- Each prints lines for one host. shell.lib makes them commands of the shell.

local jid = require "util.jid";
local time_now = require "util.time".now;

local MAX_SHOWN = 100; -- joins that one command prints

local function plural(count, noun) return ("%d %s%s"):format(count, noun, count == 1 and "" or "s"); end

-- A duration, in the two largest units that people use
local function duration(seconds)
	seconds = math.floor(math.max(0, seconds));
	if seconds < 60 then return seconds.." s"; end
	local minutes = math.floor(seconds / 60);
	if minutes < 60 then return minutes.." min"; end
	return ("%d h %d min"):format(math.floor(minutes / 60), minutes % 60);
end

return function (settings, state, sender, outbox, closes, rosters, checks, renewals)
	local commands = {};

	local function webhooks()
		local kind, message = module:get_status();
		local accepted = sender.accepted_at();
		local last = accepted and ("the last one %s ago"):format(duration(time_now() - accepted))
			or "none since the module was loaded";
		-- A wrong setting, or the failure of the newest webhook
		if kind == "error" or kind == "warn" then return message.."; accepted: "..last; end
		return "accepted: "..last;
	end

	function commands.status(print)
		local length, age = outbox.backlog();
		local hosts = 0;
		for _ in pairs(state.remotes) do hosts = hosts + 1; end
		print("  Webhooks: "..webhooks());
		print("  Queue: "..(length == 0 and "empty"
			or ("%s, the oldest has waited for %s"):format(plural(length, "event"), duration(age))));
		print(("  Joins: %d, in rooms on %s"):format(state.joins, plural(hosts, "remote host")));
		print(("  Closes that wait until ping_muc_delay allows another report: %d"):format(closes.held()));
		print("  Dry run: "..(settings.dry_run and "on: nobody is notified or brought back" or "off"));
		return true;
	end

	-- `text`: a part of a user, a room or a nick; nil for all joins
	function commands.joins(print, text)
		local found, count = {}, 0;
		for full, track in pairs(state.tracks) do
			for room, join in pairs(track.rooms) do
				local names = ("%s in %s as %s"):format(full, room, join.nick);
				if not text or names:find(text, 1, true) then
					count = count + 1;
					if count <= MAX_SHOWN then
						table.insert(found, ("  %s, for %s"):format(names, duration(time_now() - join.at / 1e6)));
					end
				end
			end
		end
		table.sort(found);
		for _, line in ipairs(found) do print(line); end
		if count > MAX_SHOWN then
			print(("  and %d more: name a part of a user, a room or a nick"):format(count - MAX_SHOWN));
		elseif count == 0 then
			print(text and "  No user, room or nick has "..text.." in its name" or "  No user is in a remote room");
		end
		return true;
	end

	-- `target`: a remote host, or one room on it. Returns whether a check was requested.
	function commands.check(print, target)
		local prepped = jid.prep(target);
		local node, remote, resource = jid.split(prepped);
		if not remote or resource then
			return nil, "Name the remote host or the room to check, for example muc.example.org or room@muc.example.org";
		end
		local room = node and prepped;
		if room and not next(rosters.joins_in(room)) or not state.remotes[remote] then return false; end
		checks.request(remote, room, "operator");
		print(("  A check of %s is requested"):format(prepped));
		return true;
	end

	function commands.announce(print)
		renewals.announce();
		sender.beat();
		print(("  %s and a heartbeat are being reported"):format(plural(state.joins, "join")));
		return true;
	end

	return commands;
end
