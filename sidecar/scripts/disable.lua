-- Let nobody lead for a time, and tell the candidates in the same instant.
-- KEYS[1]  the lease's key
-- ARGV[1]  for how many seconds
-- Answers the holder that was found ('' none), and why the notice was refused ('' it was not).
local holder = redis.pcall('GET', KEYS[1]) -- only to name it: a key of another type is disabled, too
call('SET', KEYS[1], 'DISABLED', 'EX', ARGV[1])
local published = redis.pcall('PUBLISH', KEYS[1] .. ':changed', 'disabled')
return {type(holder) == 'string' and string.sub(holder, 1, 256) or '', type(published) == 'table' and published.err or ''}
