-- Give our own term up and tell the others in the same instant. Without a term (token '') it only looks.
-- Outcomes: released, vacant, held, disabled, superseded, wrong_type, bad_fence, late.
local problem = read()
if problem then return answer(problem) end

if not our_term() then
  guard_wait() -- so that a change of server is noted
  return answer(held_otherwise())
end

redis.call('DEL', key)
redis.call('PUBLISH', key .. ':changed', 'released')
holder = false
return answer('released')
