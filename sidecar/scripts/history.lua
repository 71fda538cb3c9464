-- Read a lease's history, and the term that the key shows now.
-- KEYS[1]  the lease's key
-- KEYS[2]  the lease's fence
-- KEYS[3]  the lease's history
-- ARGV[1]  the maximum number of entries
-- Returns texts of limited length: the holder ('' if none), the fence's token ('' if none), and for each entry, the
-- newest first: its id, event, token, holder, reason.
local entries = call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', ARGV[1])
local holder = redis.pcall('GET', KEYS[1]) -- a key or a fence of another type shows no term
local fence = redis.pcall('HMGET', KEYS[2], 'token')
local function text(value) return type(value) == 'string' and string.sub(value, 1, 256) or '' end

local result = {text(holder), text(fence[1])}
for _, entry in ipairs(entries) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  table.insert(result, text(entry[1]))
  for _, name in ipairs({'event', 'token', 'holder', 'reason'}) do table.insert(result, text(fields[name])) end
end
return result
