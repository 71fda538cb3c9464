-- End what an operator's DISABLED began, and tell the candidates in the same instant. Another holder is left alone.
-- KEYS[1]  the lease's key
-- Answers the holder that was found ('' none), and why the notice was refused ('' it was not).
local holder = call('GET', KEYS[1]) or ''
local published
if string.upper(holder) == 'DISABLED' then
  call('DEL', KEYS[1])
  published = redis.pcall('PUBLISH', KEYS[1] .. ':changed', 'enabled') -- the lease is enabled all the same
end
return {string.sub(holder, 1, 256), type(published) == 'table' and published.err or ''}
