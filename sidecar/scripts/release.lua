-- Give up our own term and notify the other candidates at once. Without a term (token '') this script only looks.
-- ARGV[10] why the term is given up, for the history.
-- Outcomes: released, vacant, held, disabled, superseded, wrong_type, bad_fence, fence_ahead, late.
local problem = read()
if problem then return answer(problem) end

if not our_term() then
  guard_wait() -- records a change of server
  return answer(held_otherwise())
end

call('DEL', key)
local published = redis.pcall('PUBLISH', key .. ':changed', 'released') -- the lease is released in any case
notice = type(published) == 'number' and 'sent' or 'refused'
holder, left = false, -2
record('release', ARGV[10] or '')
return answer('released')
