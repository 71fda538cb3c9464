-- Prolong our own term, and nothing else. The failover guard lets it pass: a term that is still led was never released.
-- ARGV[7]  the ttl in ms below which the key is written; above it the lease is only verified, so that a watcher who
--          hears of our write and verifies does not write again.
-- Outcomes: renewed, vacant, held, disabled, superseded, wrong_type, bad_fence, late.
local problem = read()
if problem then return answer(problem) end

if not our_term() then
  guard_wait() -- so that a change of server is noted
  return answer(held_otherwise())
end

local left = redis.call('PTTL', key)
if left < tonumber(ARGV[7]) or left > ttl then redis.call('PEXPIRE', key, ttl) end -- somebody removed or raised the TTL
vouch()
return answer('renewed')
