-- Give up our own term and notify the other candidates at once. Without a term (token '') this script only looks.
-- In a large fleet only the candidates with a direct watch are notified, because Redis writes all messages before it
-- executes the next call. If none of them acquires the lease, they notify the others with `relay`.
-- ARGV[10] why the term is given up, for the history.
-- Outcomes: released, vacant, held, disabled, superseded, wrong_type, bad_fence, fence_ahead, late.
local FEW_DIRECT = 4 -- includes the holder's own watch; with so few, all may end before one of them relays the notice
local FEW_RELAYED = 24
-- The same number as in herd.py. With more direct watches, each release requests a relay. A candidate that does not
-- campaign makes no other call, so only the reply to its own relay shows that it should change to a relayed watch.
local MAX_DIRECT = 12
local problem = read()
if problem then return answer(problem) end

if not our_term() then
  guard_wait() -- records a change of server
  return answer(held_otherwise())
end

local with_direct, with_relayed = count_watchers()
local to_all = not with_direct or with_direct <= FEW_DIRECT or with_relayed <= FEW_RELAYED
call('DEL', key)
local relay = with_direct and (not to_all or with_direct > MAX_DIRECT)
local published = redis.pcall('PUBLISH', direct_channel, relay and 'released, relay' or 'released')
notice = type(published) == 'number' and 'sent' or 'refused' -- the lease is released in any case
if to_all and with_relayed ~= 0 then publish_vacant() end
holder, left = false, -2
record('release', ARGV[10] or '')
return answer('released')
