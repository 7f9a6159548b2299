-- mod_ping_muc_webhook: the XMPP server's half of ping-muc
--
-- Reports, as signed webhooks, which local session is in which remote room, which s2s connection closed, and which
-- room is in doubt. Serves a small, signed HTTP API, through which the receiver pings the rooms as the users, brings
-- them back and notifies them. It decides nothing itself. The contract is in the folder protocol/ of the project.
--
--   tracking ──▶ joins ──▶ folds ─┐
--   closes, doubts, renewals ─────┴▶ sender, outbox ──signed──▶ the receiver
--   the receiver ──signed──▶ api, requests ──▶ actions ──▶ queries, reentry ──▶ the rooms
--                                                 └──────▶ notices ──▶ the clients

-- What the module stores, and its settings

local stored = module:require "state";
local configuration = module:require "configuration"(stored.state);
local state, next_at, settings = stored.state, stored.next_at, configuration.settings;

module:depends("http");
module:add_feature("urn:ping-muc:0");
stored.prepare();

-- Events for the receiver

local signature = module:require "signature"(settings);
local outbox = module:require "outbox"(state);
local sender = module:require "sender"(settings, state, outbox, signature);
local folds = module:require "folds"(settings, state, sender);

-- What is known about streams, rooms and sessions

local queries = module:require "queries";
local closes = module:require "closes"(settings, state, sender, queries, next_at);
local history = module:require "history"(settings, state);
local rosters = module:require "rosters"(settings, state, next_at);
local holds = module:require "holds"(state);
local reentry = module:require "reentry"(state, queries, holds, history, rosters);
local checks = module:require "checks"(settings, sender, next_at);
local doubts = module:require "doubts"(settings, state, checks, rosters, closes);
local joins = module:require "joins"(
	settings, state, sender, folds, closes, history, rosters, reentry, doubts, next_at
);
local renewals = module:require "renewals"(settings, state, sender, joins);
local adoption = module:require "adoption"(joins, queries);
module:require "tracking"(state, joins, closes, rosters, holds, reentry);

-- The stanza API

local answers = module:require "answers"(joins, closes);
local notices = module:require "notices"(joins, reentry, answers);
local actions = module:require "actions"(settings, joins, queries, closes, rosters, reentry, answers, notices);
local limits = module:require "limits"(queries);
local replays = module:require "replays"(state, signature);
local responses = module:require "responses";
local requests = module:require "requests"(settings, sender, limits, actions, doubts, replays, responses);
module:require "api"(signature, replays, responses, requests);

-- For operators

local commands = module:require "commands"(settings, state, sender, outbox, closes, rosters, checks, renewals);
local shell = module:require "shell"(commands);

-- Applies settings that differ from the ones before.
local function apply(before)
	joins.drop_unwatched();
	renewals.follow_settings();
	history.follow_settings();
	rosters.follow_settings();
	doubts.follow_settings();
	for remote in pairs(before.excluded or {}) do
		if not settings.excluded[remote] then
			adoption.adopt(function (searched) return before.excluded[searched]; end);
			break;
		end
	end
end
configuration.on_change(apply);

function module.load()
	folds.resume();
	if not module.reloading then
		if not stored.is_new then joins.drop_ended(); end -- a reload failed, and users were active meanwhile
		adoption.adopt_all();
	elseif stored.is_handed_over then
		joins.drop_unwatched();
	elseif stored.is_new then
		adoption.adopt_all();
	end
	closes.resume();
	sender.resume();
	if module.reloading then apply(configuration.before); end
end

function module.unload()
	sender.stop();
	requests.stop();
	shell.stop();
	if not module.reloading then stored.clear(); end
end

-- mod_ping_muc does the same job inside the server.
local function warn_of_double(name)
	if name ~= "ping_muc" or settings.dry_run then return; end -- in a dry run the two are compared
	module:log("warn", "mod_ping_muc is loaded on this host, too, and users would be notified twice. "
		.."Remove one of the two from modules_enabled");
end
if prosody.hosts[module.host].modules.ping_muc then warn_of_double("ping_muc"); end
module:hook("module-loaded", function (event) warn_of_double(event.module); end);
