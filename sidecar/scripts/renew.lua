-- Prolong our own term, and nothing else. The failover guard lets it pass: a term that is still led was never released.
-- ARGV[7]  the ttl in ms below which the key is written; above it the lease is only verified, so that a watcher who
--          hears of our write and verifies does not write again.
-- ARGV[8]  '1' if replicas are to confirm it (MIN_REPLICAS).
-- Outcomes: renewed, vacant, held, disabled, superseded, wrong_type, bad_fence, fence_ahead, late.
local problem = read()
if problem then return answer(problem) end

if not our_term() then
  guard_wait() -- so that a change of server is noted
  return answer(held_otherwise())
end

if left < tonumber(ARGV[7]) or left > ttl then -- -1, or above the ttl: somebody removed or raised it
  call('PEXPIRE', key, ttl)
  left = ttl
elseif ARGV[8] == '1' then
  call('HSET', fence, 'beat', integer(now)) -- for WAIT: where nothing was written, any replica confirms it
end
vouch()
return answer('renewed')
