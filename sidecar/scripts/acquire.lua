-- Take the vacant lease under a new token, or take our own term up again under its old one.
-- Outcomes: acquired, adopted, held, disabled, guarded, wrong_type, bad_fence, late.
local problem = read()
if problem then return answer(problem) end

local wait = guard_wait() -- asked in any case: the wait counts from when the change was first seen
if holder and holder ~= id then return answer(held_otherwise()) end
if wait > 0 then return answer('guarded', wait) end

if ours() then
  if last_tenure ~= tenure then redis.call('HSET', fence, 'tenure', tenure) end
  last_tenure = tenure
  redis.call('PEXPIRE', key, ttl)
  vouch()
  return answer('adopted')
end

last = integer(math.max((tonumber(last or '') or 0) + 1, now)) -- INCR alone goes backwards when the server loses data
redis.call('HSET', fence, 'token', last, 'holder', id, 'tenure', tenure) -- before the key: no term without its token
last_tenure = tenure
vouch()
redis.call('SET', key, id, 'PX', ttl)
holder = id
return answer('acquired')
