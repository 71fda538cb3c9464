-- Give our own term up and tell the others in the same instant. Without a term (token '') it only looks.
-- Outcomes: released, vacant, held, disabled, superseded, wrong_type, bad_fence, fence_ahead, late.
local problem = read()
if problem then return answer(problem) end

if not our_term() then
  guard_wait() -- so that a change of server is noted
  return answer(held_otherwise())
end

call('DEL', key)
local published = redis.pcall('PUBLISH', key .. ':changed', 'released') -- the lease is released all the same
notice = type(published) == 'number' and 'sent' or 'refused'
holder, left = false, -2
return answer('released')
