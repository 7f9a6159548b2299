-- Shell: prosodyctl shell ping_muc status|joins|check|announce, on 0.12 and 13.0
--
-- One section of the shell serves all hosts that have the module. It is put into the environment of mod_admin_shell
-- itself, the only way on 0.12. Items of the kind "shell-command", which 13.0 also has, would demand the name of a host
-- in each command, and 13.0.1 keeps the handlers of a module that was unloaded.

local HELP = {
	desc = "Users who are in rooms on other servers, and checks whether they still are";
	commands = {
		status = { desc = "Shows how webhooks, queue, joins and closes stand", args = {} };
		joins = { desc = "Shows which users are in which remote rooms", args = { { name = "part_of_a_name" } } };
		check = { desc = "Requests a check of a remote host, or of one room, now", args = { { name = "host_or_room" } } };
		announce = { desc = "Reports all joins again, and a heartbeat, now", args = {} };
	};
};

local env = module:shared("/*/admin_shell/env");
local commands_of = module:shared("/*/ping_muc_webhook/commands"); -- host → name → function

-- Runs a command of all hosts. The shell prints what it returns.
local function run(name, session, argument)
	local hosts, done = {}, 0;
	for host in pairs(commands_of) do table.insert(hosts, host); end
	table.sort(hosts);
	for _, host in ipairs(hosts) do
		local lines = {};
		local is_done, wrong = commands_of[host][name](function (line) table.insert(lines, line); end, argument);
		if wrong then return nil, wrong; end
		if is_done then
			done = done + 1;
			session.print(host);
			for _, line in ipairs(lines) do session.print(line); end
		end
	end
	if done == 0 then return nil, ("No user of this server is in a room there: %s"):format(argument); end
	return true, ("%d host%s"):format(done, done == 1 and "" or "s");
end

return function (commands)
	local section = setmetatable({}, { help = HELP });
	for name in pairs(HELP.commands) do
		section[name] = function (self, argument) return run(name, self.session, argument); end;
	end
	commands_of[module.host] = commands;
	env.ping_muc = section;

	-- The module is unloaded.
	local function stop()
		commands_of[module.host] = nil;
		if not next(commands_of) then env.ping_muc = nil; end
	end

	return { stop = stop };
end
