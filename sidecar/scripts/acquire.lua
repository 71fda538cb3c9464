-- Take the vacant lease under a new token, or take our own term up again under its old one.
-- Outcomes: acquired, adopted, held, disabled, guarded, wrong_type, bad_fence, fence_ahead, late.
local problem = read()
if problem then return answer(problem) end

local wait = guard_wait() -- asked in any case: the wait counts from when the change was first seen
if holder and holder ~= id then return answer(held_otherwise()) end
if wait > 0 then return answer('guarded', wait) end

call('SET', key, id, holder and 'NX' or 'XX', 'PX', ttl) -- writes nothing: a refusal comes before the fence is changed

local taken_up = ours()
if taken_up then
  if last_tenure ~= tenure then call('HSET', fence, 'tenure', tenure) end
else
  last = integer(math.max((tonumber(last or '') or 0) + 1, now)) -- INCR alone goes backwards when the server loses data
  call('HSET', fence, 'token', last, 'holder', id, 'tenure', tenure) -- before the key: no term without its token
end
last_tenure = tenure
vouch()
call('SET', key, id, 'PX', ttl)
holder, left = id, ttl
return answer(taken_up and 'adopted' or 'acquired')
