-- Checks that are requested for another cause than a close (rule 11 in docs/rules.md)

local count_requested = module:metric("counter", "checks_requested", "", "Checks requested, by cause", { "cause" });

return function (settings, sender, next_at)
	-- Requests a check that is due at once. `room`: nil for all rooms on the remote host
	local function request(remote, room, cause)
		module:log("debug", "Requesting a check of %s (%s)", room or remote, cause);
		count_requested:with_labels(cause):add(1);
		-- Its key differs from that of a close, which it must not replace in the queue.
		sender.enqueue("check.requested", room or "all rooms on "..remote, next_at(), {
			remote = remote, room = room, cause = cause, delay = 0,
			timeout = settings.timeout, patience = settings.patience, dry_run = settings.dry_run, reenter = settings.reenter,
			notice_limit = settings.notice_limit, notice_share = settings.notice_share,
		});
	end

	return { request = request };
end
