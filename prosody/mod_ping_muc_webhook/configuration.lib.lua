-- Configuration: the settings in use. They follow the configuration as long as it is right.
--
-- A wrong setting prevents the module from loading. If it is already loaded, it keeps the settings that it has.

local read_settings = module:require "settings".read;

return function (state)
	local wrong; -- what is wrong in the configuration, while it is
	local set_status = module.set_status;

	-- Until the setting is right again it stays in the module's status, whatever the webhooks report.
	function module:set_status(...) -- luacheck: ignore 212/self
		if not wrong then return set_status(module, ...); end
	end

	-- Returns the settings; nil if one is wrong, and earlier ones are kept.
	local function read()
		local ok, result = pcall(read_settings);
		if not ok and not state.settings then error(result, 0); end
		if ok then
			if wrong then
				wrong = nil;
				module:set_status("core", "The settings are right again", true);
			end
			return result;
		end
		wrong = nil;
		module:log("error", "%s. The module keeps its previous settings", result);
		module:set_status("error", result..". Until then the module keeps its previous settings", true);
		wrong = result;
	end

	local before = state.settings or {};
	local settings = read() or state.settings;
	state.settings = settings; -- the last ones that were right

	-- Calls back after each reload of the configuration, with the settings before it.
	local function on_change(apply)
		module:hook_global("config-reloaded", function ()
			local fresh = read();
			if not fresh then return; end
			local old = {};
			for name, value in pairs(fresh) do old[name], settings[name] = settings[name], value; end
			apply(old);
		end);
	end

	-- `before`: the settings before the module was loaded; empty if there were none
	return { settings = settings, before = before, on_change = on_change };
end
