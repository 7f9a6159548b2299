-- Text from other hosts

local utf8_valid = require "util.encodings".utf8.valid;

-- The text, cut to at most `max` bytes; nil if it is not UTF-8
local function cut(text, max)
	for stop = max, max - 3, -1 do
		local part = text:sub(1, stop);
		if utf8_valid(part) then return part; end
	end
end

return { cut = cut };
