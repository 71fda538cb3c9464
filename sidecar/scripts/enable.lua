-- Delete an operator's DISABLED with its reason, and notify the candidates at once. Another holder is not changed.
-- KEYS[1]  the lease's key
-- Returns the state that was found ('vacant' or 'held'), the holder ('' if none), and the refusal of the notice ('' if
-- there was none).
local value = call('GET', KEYS[1])
local holder = value or ''
local published
if string.upper(holder) == 'DISABLED' then
  local fence = string.find(KEYS[1], '{', 1, true) and 'fence:' .. KEYS[1] or 'fence:{' .. KEYS[1] .. '}'
  call('DEL', KEYS[1])
  -- If Redis refuses this, the reason stays, but is not shown.
  redis.pcall('HDEL', fence, 'disabled_by', 'disabled_reason', 'disabled_until')
  published = redis.pcall('PUBLISH', KEYS[1] .. ':changed', 'enabled') -- the lease is enabled in any case
  redis.pcall('PUBLISH', KEYS[1] .. ':vacant:changed', 'vacant') -- notifies the relayed watches
end
return {value and 'held' or 'vacant', string.sub(holder, 1, 256), type(published) == 'table' and published.err or ''}
