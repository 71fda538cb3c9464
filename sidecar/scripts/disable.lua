-- Let nobody lead for a time, and notify the candidates at once.
-- KEYS[1]  the lease's key
-- ARGV[1]  the time in seconds
-- Returns the holder that was found ('' if none), and why the notice was refused ('' if it was not).
local holder = redis.pcall('GET', KEYS[1]) -- only for the answer: a key of another type is disabled too
call('SET', KEYS[1], 'DISABLED', 'EX', ARGV[1])
local published = redis.pcall('PUBLISH', KEYS[1] .. ':changed', 'disabled')
return {type(holder) == 'string' and string.sub(holder, 1, 256) or '', type(published) == 'table' and published.err or ''}
