-- A clock that the caller moves, and timers that follow it, in place of Prosody's: for any-lua.lua and lua-parts.lua
-- `at`: the time, in seconds.
return function (at)
	local clock, timers = { at = at }, {};

	function clock.add_timer(_, after, call)
		local timer = { at = clock.at + after; call = call };
		timers[timer] = true;
		function timer:stop() timers[self] = nil; end
		return timer;
	end

	function clock.stop_timers() timers = {}; end

	-- Lets time pass.
	function clock.pass(seconds)
		local stop = clock.at + seconds;
		while true do
			local first;
			for timer in pairs(timers) do
				if timer.at <= stop and (not first or timer.at < first.at) then first = timer; end
			end
			if not first then break; end
			timers[first] = nil;
			clock.at = math.max(clock.at, first.at);
			local again = first.call();
			if type(again) == "number" then clock:add_timer(again, first.call); end
		end
		clock.at = stop;
	end

	return clock;
end
