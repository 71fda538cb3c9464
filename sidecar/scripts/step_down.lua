-- Ask the holder of a term to give it up, and notify the holder at once. The key is not changed: the holder releases
-- the lease after its client's work has stopped.
-- ARGV[5]  the token of the term; a lease that has another term, or none, is not changed.
-- Returns a table: the outcome ('asked', 'vacant', 'disabled', 'changed', 'wrong_type', 'bad_fence', 'fence_ahead') and
-- why the notice was refused ('' if it was not).
local problem = read()
if problem then return {problem, ''} end
if not holder then return {'vacant', ''} end
if disabled() then return {'disabled', ''} end
if last ~= token or last_holder ~= holder then return {'changed', ''} end

call('HSET', fence, 'step_down', last)
local published = redis.pcall('PUBLISH', key .. ':changed', 'step-down') -- the holder also reads the field as it renews
return {'asked', type(published) == 'table' and published.err or ''}
