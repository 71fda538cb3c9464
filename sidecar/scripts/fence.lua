-- Look at Redis's side of a lease's fence; with ARGV[8], give the fence a token from which the next term's counts on.
-- ARGV[7]  the least token that the fence is to have; '' for none. A fence that refuses every term gets the server's
--          time at least.
-- ARGV[8]  the state that was seen one ttl ago: nothing is changed if it is another by now; '' only to look
-- Answers a table: what was done ('sound': nothing to mend; 'looked', 'mended', 'not_disabled', 'changed'), the problem ('none', 'wrong_type',
-- 'bad_fence', 'fence_ahead'), holder ('' none), its ttl in ms, server time in µs, the fence's token ('' none), the
-- token's holder, the token that the fence has or would be mended to, state.
local problem = read()
if problem == 'disabled' then problem = read_fence() end
problem = problem or 'none'
local kind = call('TYPE', fence).ok
local state = redis.sha1hex(table.concat({kind, last or '', last_holder or '', last_tenure or ''}, '\n'))
local sound = problem == 'none' and tonumber(last or '') or 0
local target = math.max(sound, tonumber(ARGV[7]) or 0)
if problem ~= 'none' then target = math.max(target, now) end

local function told(done)
  return {done, problem, holder and string.sub(holder, 1, 256) or '', integer(left), integer(now),
          string.sub(last or '', 1, 256), string.sub(last_holder or '', 1, 256), integer(target), state}
end

if target == sound then return told('sound') end
if ARGV[8] == '' then return told('looked') end
if not disabled() then return told('not_disabled') end
if state ~= ARGV[8] then return told('changed') end -- such as a term that began since
local values = {'token', integer(target), 'holder', '', 'tenure', ''}
local written = redis.pcall('HSET', fence, unpack(values))
if type(written) == 'table' and string.find(written.err, 'WRONGTYPE', 1, true) then call('DEL', fence) end
call('HSET', fence, unpack(values)) -- the first one has shown that it is allowed, before anything was deleted
return told('mended')
