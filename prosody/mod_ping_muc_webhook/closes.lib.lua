-- Closes: which s2s connection of this host went away

local cut = module:require "text".cut;

local MAX_CLOSE_REASON = 256; -- bytes

return function (settings, state, sender, joins)
	local function closed(event)
		local session, reason = event.session, event.reason;
		if type(reason) == "table" then reason = reason.text or reason.condition; end
		reason = type(reason) == "string" and cut(reason, MAX_CLOSE_REASON) or nil;
		local remotes = {};
		for remote, status in pairs(session.hosts or {}) do
			if status.authed then remotes[remote] = true; end
		end
		local peer = session.direction == "outgoing" and session.to_host or session.from_host;
		if peer then remotes[peer] = true; end
		for remote in pairs(remotes) do
			if state.remotes[remote] then
				sender.enqueue("s2s.closed", remote, joins.next_at(), {
					remote = remote, direction = session.direction, reason = reason,
					delay = settings.delay, timeout = settings.timeout, patience = settings.patience, dry_run = settings.dry_run,
				});
			end
		end
	end
	module:hook("s2sin-destroyed", closed);
	module:hook("s2sout-destroyed", closed);
end
