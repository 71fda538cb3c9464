-- Let nobody lead for a time, and notify the candidates with a direct watch at once. The lease's fence stores the
-- reason.
-- KEYS[1]  the lease's key
-- ARGV[1]  the time in seconds
-- ARGV[2]  who disables the lease
-- ARGV[3]  the reason; '' for none
-- Returns the state that was found, the holder ('' if none), the refusal of the notice ('' if it was sent), and the
-- error that kept the reason from being stored ('' if it was stored). The state is 'vacant', 'held' or 'unreadable'
-- (the key is not a string, or the user has no right to GET).
--
-- The fence is not in KEYS: without a right to the fence, a user can disable the lease, but cannot store the reason.
-- `disabled_until` (ms) ties the reason to this DISABLED: a later SET by hand expires at another time.
local fence = string.find(KEYS[1], '{', 1, true) and 'fence:' .. KEYS[1] or 'fence:{' .. KEYS[1] .. '}'
local holder = redis.pcall('GET', KEYS[1]) -- only for the answer: a key of another type is disabled too
call('SET', KEYS[1], 'DISABLED', 'EX', ARGV[1])

local written, problem = pcall(function()
  local clock = call('TIME')
  local ends = (tonumber(clock[1]) + tonumber(ARGV[1])) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  call('HSET', fence, 'disabled_by', ARGV[2], 'disabled_reason', ARGV[3], 'disabled_until', string.format('%.0f', ends))
end)
local published = redis.pcall('PUBLISH', KEYS[1] .. ':changed', 'disabled')
local is_text = type(holder) == 'string'
return {is_text and 'held' or holder and 'unreadable' or 'vacant', is_text and string.sub(holder, 1, 256) or '',
        type(published) == 'table' and published.err or '', written and '' or tostring(problem)}
