-- Look at a lease's fence in Redis. With ARGV[8], set the fence's token, which the next term's token will exceed.
-- ARGV[7]  the minimum for the fence's token; '' for none. A fence that refuses every term gets at least the server's
--          time.
-- ARGV[8]  the state that was seen one ttl ago: if the state has changed, nothing is written; '' to look only
-- Returns a table: the result ('sound': nothing to repair; 'looked', 'repaired', 'not_disabled', 'changed'), the problem
-- ('none', 'wrong_type', 'bad_fence', 'fence_ahead'), the holder ('' if none), its ttl in ms, the server's time in µs,
-- the fence's token ('' if none), the token's holder, the token that the fence has or would get, the state; then who
-- disabled the lease, the reason, and the time until which it is disabled (ms); 'step_down' if the token's holder was
-- asked to step down, else ''; 'server_changed' if a candidate has noticed another server and no term has been
-- acquired or renewed there since, else ''; 'read_only' if the server is a read-only replica, else ''.
local problem = read()
if problem == 'disabled' then problem = read_fence() end
problem = problem or 'none'
local kind = call('TYPE', fence).ok
local state = redis.sha1hex(table.concat({kind, last or '', last_holder or '', last_tenure or ''}, '\n'))
local sound = problem == 'none' and tonumber(last or '') or 0
local target = math.max(sound, tonumber(ARGV[7]) or 0)
if problem ~= 'none' then target = math.max(target, now) end

local notes = kind == 'hash' and call('HMGET', fence, 'disabled_by', 'disabled_reason', 'disabled_until', 'changed')
  or {}
local replication = redis.pcall('INFO', 'replication') -- the user may lack the right
local read_only = type(replication) == 'string' and string.find(replication, 'slave_read_only:1', 1, true)
local function text(value, limit) return string.sub(value or '', 1, limit or 256) end

local function result(done)
  return {done, problem, text(holder), integer(left), integer(now), text(last), text(last_holder), integer(target),
          state, text(notes[1]), text(notes[2], 1024), text(notes[3]), stepping_down() and 'step_down' or '',
          notes[4] and 'server_changed' or '', read_only and 'read_only' or ''}
end

if target == sound then return result('sound') end
if ARGV[8] == '' then return result('looked') end
if not disabled() then return result('not_disabled') end
if state ~= ARGV[8] then return result('changed') end -- for example, a term has begun since
local values = {'token', integer(target), 'holder', '', 'tenure', ''}
local written = redis.pcall('HSET', fence, unpack(values))
if type(written) == 'table' and string.find(written.err, 'WRONGTYPE', 1, true) then call('DEL', fence) end
call('HSET', fence, unpack(values)) -- the first HSET has shown, before the DEL, that the user may write
return result('repaired')
