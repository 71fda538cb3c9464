-- Delete an operator's DISABLED, and notify the candidates at once. A key with another holder is not changed.
-- KEYS[1]  the lease's key
-- Returns the holder that was found ('' if none), and why the notice was refused ('' if it was not).
local holder = call('GET', KEYS[1]) or ''
local published
if string.upper(holder) == 'DISABLED' then
  call('DEL', KEYS[1])
  published = redis.pcall('PUBLISH', KEYS[1] .. ':changed', 'enabled') -- the lease is enabled in any case
end
return {string.sub(holder, 1, 256), type(published) == 'table' and published.err or ''}
