-- Limits of the stanza API: how many requests, and queries to rooms, may be under way at once

local MAX_READING = 16; -- requests that are being read, and whose stanzas are being sent
local MAX_WAITING = 256; -- requests that wait for rooms
local MAX_WAITING_FOR_HOST = 8; -- of those, for one remote host: a silent one must not hold up the others
-- The same, of requests about a single room. Checks of many single rooms must not hold up checks of whole hosts.
local MAX_SINGLE, MAX_SINGLE_FOR_HOST = 192, 6;
local MAX_IN_FLIGHT = 1000; -- queries to one remote host, which reads them at its own pace
local MAX_ALL_IN_FLIGHT = 32000; -- queries to all remote hosts

local function add(counts, key, more)
	local count = (counts[key] or 0) + more;
	counts[key] = count ~= 0 and count or nil;
end

return function (queries)
	local reading, waiting, single, in_flight = 0, 0, 0, 0;
	local waiting_for, single_for = {}, {}; -- remote host → number of requests that wait for it
	local planned = {}; -- remote host → number of queries that requests are still to send

	-- A request's queries count from the moment at which it is accepted. Otherwise the next one, which arrives before they
	-- are sent, would be accepted, too.
	local function plan(request, remote, more)
		request.planned[remote] = (request.planned[remote] or 0) + more;
		add(planned, remote, more);
	end

	local function can_read() return reading < MAX_READING; end

	local function start_reading() reading = reading + 1; end

	local function count_wait(request, more)
		waiting = waiting + more;
		if request.is_single then single = single + more; end
		for remote in pairs(request.planned) do
			add(waiting_for, remote, more);
			if request.is_single then add(single_for, remote, more); end
		end
	end

	-- All stanzas of the request have been sent.
	local function start_waiting(request)
		reading = reading - 1;
		count_wait(request, 1);
	end

	-- The request has been answered, or given up.
	local function finish(request)
		if request.is_waiting then count_wait(request, -1); else reading = reading - 1; end
		for remote, count in pairs(request.planned) do plan(request, remote, -count); end
	end

	-- HTTP status and text if a request must be refused that has planned so many queries; otherwise nil
	local function refusal(request, count)
		local is_full = waiting >= MAX_WAITING or (request.is_single and single >= MAX_SINGLE);
		if count > 0 and (is_full or in_flight + count > MAX_ALL_IN_FLIGHT) then
			return 503, "too many requests wait for rooms";
		end
		for remote in pairs(request.planned) do
			if (waiting_for[remote] or 0) >= MAX_WAITING_FOR_HOST then
				return 429, ("%d requests wait for one remote host already"):format(MAX_WAITING_FOR_HOST);
			elseif request.is_single and (single_for[remote] or 0) >= MAX_SINGLE_FOR_HOST then
				return 429, ("%d requests about single rooms wait for one remote host already"):format(MAX_SINGLE_FOR_HOST);
			elseif planned[remote] + (queries.in_flight[remote] or 0) > MAX_IN_FLIGHT then
				return 429, ("more than %d pings would be in flight to one remote host"):format(MAX_IN_FLIGHT);
			end
		end
	end

	return {
		can_read = can_read, start_reading = start_reading, start_waiting = start_waiting, finish = finish;
		plan = plan, refusal = refusal;
		count_in_flight = function (more) in_flight = in_flight + more; end;
	};
end
