-- Replays: which requests to the stanza API have been accepted, so that nobody can send a recorded one again

return function (state, signature)
	local MEMORY = 2 * signature.TOLERANCE; -- seconds: a timestamp may also be ahead of our clock

	local function key_of(headers)
		return headers.webhook_id.."\0"..headers.webhook_timestamp;
	end

	local function is_replay(headers)
		return state.replays:get(key_of(headers)) ~= nil;
	end

	-- Stores a request. Returns its key; nil if there are too many.
	local function remember(headers)
		local replays, now = state.replays, os.time();
		while true do
			local oldest, expires_at = replays:tail();
			if not oldest or expires_at > now then break; end
			replays:set(oldest, nil);
		end
		local key = key_of(headers);
		return replays:set(key, now + MEMORY) and key or nil;
	end

	-- Nothing of the request was sent: it may come again.
	local function drop(key)
		state.replays:set(key, nil);
	end

	return { is_replay = is_replay, remember = remember, drop = drop, MEMORY = MEMORY };
end
