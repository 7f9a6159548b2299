-- Prosody's own names in a module
std = "lua54"
globals = { module = { other_fields = true } }
read_globals = { prosody = { other_fields = true } }
max_line_length = 120
