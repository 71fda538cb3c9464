-- Extend our own term only. The failover guard refuses no renewal: a server that lost writes may still show a term that
-- was released, but a candidate never renews a term that it has released.
-- ARGV[7]  the ttl in ms below which the key is written. Above it the lease is only checked: a leader that checks its
--          key after a notice of its own write must not write again.
-- ARGV[8]  '1' if replicas must confirm the renewal (MIN_REPLICAS).
-- Outcomes: renewed, stepping_down (renewed, and an operator asked us to give the term up), vacant, held, disabled,
-- superseded, wrong_type, bad_fence, fence_ahead, late.
local problem = read()
if problem then return answer(problem) end

if not our_term() then
  guard_wait() -- records a change of server
  return answer(held_otherwise())
end

if left < tonumber(ARGV[7]) or left > ttl then -- `left` is -1 or above the ttl if somebody removed or raised the ttl
  call('PEXPIRE', key, ttl)
  left = ttl
elseif ARGV[8] == '1' then
  call('HSET', fence, 'beat', integer(now)) -- WAIT needs a write: without a write, any replica confirms
end
-- If Redis refuses to extend the key, the script ends before `vouch` ends the guard: on a stale replica that was
-- promoted, the key may expire earlier than we believe.
vouch()
if ARGV[8] == '1' and recorded ~= token then -- the renewal shows that the acquire was confirmed
  redis.pcall('HSET', fence, 'recorded', token)
  record('acquire', '')
end
return answer(stepping_down() and 'stepping_down' or 'renewed')
