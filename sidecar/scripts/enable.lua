-- End what an operator's DISABLED began, and tell the candidates in the same instant. Another holder is left alone.
-- KEYS[1]  the lease's key
-- Answers the holder that was found, or nothing where there was none.
local holder = redis.call('GET', KEYS[1])
if holder and string.upper(holder) == 'DISABLED' then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', KEYS[1] .. ':changed', 'enabled')
end
return holder
