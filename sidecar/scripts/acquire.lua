-- Take the vacant lease under a new token, or adopt our own term again under its old token. If the key has our id, but
-- the fence shows no term of ours, the lease also gets a new token.
-- A term of ours that an operator asked us to give up is adopted only to be released: its key is not extended.
-- Outcomes: acquired, adopted, stepping_down, held, disabled, guarded, wrong_type, bad_fence, fence_ahead, late.
local problem = read()
if problem then return answer(problem) end

local wait = guard_wait() -- called even if the lease is held: the first call after a change of server starts the wait
if holder and holder ~= id then return answer(held_otherwise()) end
if wait > 0 then
  count_watchers()
  return answer('guarded', wait)
end

-- This SET never writes, because its condition is false. If Redis refuses it, the script ends before it changes the
-- fence's token.
call('SET', key, id, holder and 'NX' or 'XX', 'PX', ttl)

local adopted = ours()
if adopted then
  if last_tenure ~= tenure then call('HSET', fence, 'tenure', tenure) end
  last_tenure = tenure
  if stepping_down() then
    if left < 0 or left > ttl then -- the ttl was removed or raised; without a ttl the caller could not release the key
      call('SET', key, id, 'PX', ttl)
      left = ttl
    end
    return answer('stepping_down')
  end
else
  last = integer(math.max((tonumber(last or '') or 0) + 1, now)) -- a counter alone goes back if the server loses data
  call('HSET', fence, 'token', last, 'holder', id, 'tenure', tenure) -- before the key, so every term has its token
  last_tenure = tenure
end
vouch()
call('SET', key, id, 'PX', ttl)
holder, left = id, ttl
if not adopted and step_down then redis.pcall('HDEL', fence, 'step_down') end -- it named an earlier term
-- With MIN_REPLICAS this acquire may remain unconfirmed, so the first renewal records it.
if not adopted and ARGV[8] ~= '1' then record('acquire', '') end
return answer(adopted and 'adopted' or 'acquired')
