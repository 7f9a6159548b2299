-- Closes: which s2s streams of this host began and ended, and which ends are reported (rule 2 in docs/rules.md)

local jid = require "util.jid";
local time_now = require "util.time".now;

local cut = module:require "text".cut;
local hosts = prosody.hosts;

local xmlns_ping = "urn:xmpp:ping";

local MAX_CLOSE_REASON = 256; -- bytes

local s2s_sessions = module:shared("/*/s2s/sessions"); -- connection → stream, of mod_s2s

return function (settings, state, sender, queries, next_at)
	-- Stream → { at, carried, arrived }: when it was established (false: before this module was loaded), whether it
	-- carried anything but our own queries, whether this host received anything over it
	state.streams = state.streams or setmetatable({}, { __mode = "k" });
	-- Remote host → { at, count, told, held }: the newest close, how many streams ended, when a close was last reported
	-- (told), and the one that is held back. Only of hosts where a session has a join.
	state.closes = state.closes or {};
	state.heard = state.heard or {}; -- remote host → when the last stanza from it arrived, in seconds; of the same hosts
	local streams, closes, heard = state.streams, state.closes, state.heard;

	-- What streams carry

	local function unseen(is_established) if is_established then return false; end end
	for session in pairs(prosody.incoming_s2s) do
		streams[session] = streams[session] or { at = unseen(session.type == "s2sin"), carried = true };
	end
	for _, session in pairs(hosts[module.host].s2sout) do
		streams[session] = streams[session] or { at = unseen(session.type == "s2sout"), carried = true };
	end

	-- Answers do not count, because their requests did. Stanzas between the servers themselves do not count either.
	local function is_of_users(stanza)
		local is_iq, stanza_type = stanza.name == "iq", stanza.attr.type;
		return not (is_iq and (stanza_type == "result" or stanza_type == "error" or queries.is_ours(stanza.attr.id)))
			and (stanza.attr.from or ""):find("@", 1, true) ~= nil;
	end

	local routed_of_users = false; -- whether the stanza that is being routed is from a user

	-- Just before mod_s2s, so that a stanza that another module has stopped does not count
	module:hook("route/remote", function (event)
		routed_of_users = is_of_users(event.stanza);
		if not routed_of_users then return; end
		local stream = streams[hosts[module.host].s2sout[event.to_host] or false];
		if stream then stream.carried = true; end
	end, -0.5);

	module:hook("s2sout-created", function (event)
		streams[event.session] = { carried = routed_of_users };
	end);

	-- This event fires once more for each host for which a stream is authenticated.
	local function established(event)
		local session = event.session;
		-- Nothing can have arrived over an incoming stream before.
		local stream = streams[session] or { carried = session.direction == "outgoing" };
		if stream.at == nil then stream.at = next_at(); end
		streams[session] = stream;
	end
	module:hook_global("s2sin-established", established);
	module:hook_global("s2sout-established", established);

	-- A room that does not answer pings itself forwards ours to the user's client, with an id of its own.
	local function is_echo(stanza)
		local remote = jid.host(stanza.attr.from);
		return stanza.name == "iq" and queries.in_flight[remote] and stanza:get_child("ping", xmlns_ping) ~= nil;
	end

	local function arrived(event)
		local origin, stanza = event.origin, event.stanza;
		if (origin.type ~= "s2sin" and origin.type ~= "s2sout") or origin.dummy then return; end
		local stream = streams[origin];
		if not stream then return; end
		stream.arrived = true;
		if not stream.carried and is_of_users(stanza) and not is_echo(stanza) then stream.carried = true; end
	end
	-- With a high priority, before another module stops it
	for _, name in ipairs { "message", "presence", "iq" } do
		module:hook(name.."/bare", arrived, 2000);
		module:hook(name.."/full", function (event)
			arrived(event);
			if event.origin.dummy or (event.origin.type ~= "s2sin" and event.origin.type ~= "s2sout") then return; end
			local remote = jid.host(event.stanza.attr.from);
			if state.remotes[remote] then heard[remote] = time_now(); end
		end, 2000);
	end

	-- How streams end

	local windows = {}; -- remote host → true for half a delay after a close was reported
	local report;

	local function open_window(remote, seconds)
		windows[remote] = true;
		module:add_timer(seconds, function ()
			windows[remote] = nil;
			local close = closes[remote];
			if not close then return; end
			if not state.remotes[remote] then
				closes[remote] = nil;
			elseif close.held then
				report(remote, close);
			end
		end);
	end

	function report(remote, close)
		local held = close.held;
		close.held, close.told = nil, time_now();
		if not windows[remote] then open_window(remote, settings.delay / 2); end
		sender.enqueue("s2s.closed", remote, held.at, {
			remote = remote, direction = held.direction, reason = held.reason,
			delay = settings.delay, timeout = settings.timeout, patience = settings.patience, dry_run = settings.dry_run,
			reenter = settings.reenter, notice_limit = settings.notice_limit, notice_share = settings.notice_share,
		});
	end

	-- Closed without an error by the other side (false), or by this server (nil; the same for a lost connection, but
	-- that one is no longer in s2s_sessions), or because it was idle, with the reason that some servers give
	local function is_clean(session, reason)
		return reason == false
			or (reason == nil and session.direction == "outgoing" and s2s_sessions[session.conn or false] == session)
			or (type(reason) == "string" and reason:find("^connection%-timeout") ~= nil);
	end

	local function closed(event)
		local session, reason = event.session, event.reason;
		local stream, peers = streams[session] or { carried = true }, {};
		if session.type == "s2sout" then
			if session.from_host == module.host then peers[session.to_host] = true; end
		elseif session.type == "s2sin" and (session.to_host == module.host or stream.arrived) then
			-- Not the host in the stream's header, which is only a claim.
			for peer, status in pairs(session.hosts) do peers[peer] = status.authed; end
		end
		local is_quiet = not stream.carried and is_clean(session, reason);
		if type(reason) == "table" then reason = reason.text or reason.condition; end
		reason = type(reason) == "string" and cut(reason, MAX_CLOSE_REASON) or nil;
		for remote in pairs(peers) do
			if state.remotes[remote] then
				local close = closes[remote] or { count = 0 };
				close.count = close.count + 1;
				closes[remote] = close;
				if not is_quiet then -- otherwise the pings of one check would cause the next one, for ever
					close.at = next_at();
					close.held = { at = close.at, direction = session.direction, reason = reason };
					-- A close that has not been sent yet is replaced.
					if not windows[remote] or state.queue:get(remote) then report(remote, close); end
				end
			end
		end
	end
	-- Before mod_smacks returns what was not acknowledged. Streams of all hosts, because one stream can carry several.
	module:hook_global("s2s-destroyed", closed);

	-- For joins: no session has one there any more.
	local function drop(remote)
		heard[remote] = nil;
		if not windows[remote] then closes[remote] = nil; end
	end

	-- Continues with what waited before the module was reloaded.
	local function resume()
		local now = time_now();
		for remote, close in pairs(closes) do
			local half = settings.delay / 2;
			if not windows[remote] and close.told then
				open_window(remote, math.max(0, math.min(close.told + half - now, half)));
			end
		end
	end

	-- How many closes are held back
	local function count_held()
		local count = 0;
		for _, close in pairs(closes) do count = count + (close.held and 1 or 0); end
		return count;
	end

	return {
		drop = drop, resume = resume, held = count_held;
		-- The newest close of a host that was reported, or will be, in microseconds; nil if none is known
		newest = function (remote) return closes[remote] and closes[remote].at; end;
		-- How many streams from and to a host have ended, reported or not
		count = function (remote) return closes[remote] and closes[remote].count or 0; end;
		-- When the stream was established, in microseconds; nil if that was before this module was loaded
		began = function (session) return streams[session] and streams[session].at or nil; end;
		-- When the last stanza from a host to a session arrived, in seconds
		heard = function (remote) return heard[remote]; end;
	};
end
