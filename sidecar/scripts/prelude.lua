-- What the three scripts begin with: prelude and script are sent as one text.
--
-- KEYS[1]  the lease's key: its holder's id, a plain string with a TTL
-- KEYS[2]  its fence, a hash without TTL: token (the last one), holder (whose it was), run_id (of the server that last
--          acted on the lease), changed_run_id and changed_at (µs: when another server was first seen)
-- ARGV[1]  our instance id
-- ARGV[2]  the lease's ttl in ms
-- ARGV[3]  deadline in the server's time, µs: after it nothing is done
-- ARGV[4]  '1' with the failover guard
-- ARGV[5]  our term's token; '' without a term
--
-- Answers one line (a client reads it several times faster than a table), words with a space between them: outcome,
-- token or '-', ttl left in ms (-1 none, -2 no key), server time in µs, ms to wait, guard, holder (may be empty).
local key, fence = KEYS[1], KEYS[2]
local id, ttl, deadline, guarding, token = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2]) -- below 2^53, exact
local function integer(number) return string.format('%.0f', number) end -- tostring would give 1.79e+15

local holder, last, last_holder = false, false, false
local guard = guarding and 'on' or 'off'

local function answer(outcome, wait)
  local left = holder and redis.call('PTTL', key) or -2
  return table.concat({outcome, last or '-', integer(left), integer(now), integer(wait or 0), guard,
                       holder and string.sub(holder, 1, 256) or ''}, ' ')
end

-- Read the lease. Returns an outcome that ends the script at once, or nothing.
local function read()
  if now > deadline then return 'late' end
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= 'string' then return 'wrong_type' end
  kind = redis.call('TYPE', fence).ok
  if kind ~= 'none' and kind ~= 'hash' then return 'bad_fence' end
  holder = redis.call('GET', key)
  last, last_holder = unpack(redis.call('HMGET', fence, 'token', 'holder'))
  if last and not (string.match(last, '^%d+$') and tonumber(last) < 2 ^ 53 - 1) then return 'bad_fence' end
end

local function held_otherwise()
  if not holder then return 'vacant' end
  if holder == id then return 'superseded' end
  return string.upper(holder) == 'DISABLED' and 'disabled' or 'held'
end

local function ours() return holder == id and last_holder == id and last end

-- This server's run id and its uptime in seconds; nothing without the guard and where a script may not ask.
local run_id, uptime
local function identify()
  local info = guarding and redis.pcall('INFO', 'server')
  if type(info) == 'string' then
    run_id, uptime = string.match(info, 'run_id:(%w+)'), tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
  end
  if guarding and not (run_id and uptime) then guard = 'unavailable' end
  return guard == 'on'
end

-- The failover guard: for how many ms no new term may start, since a write may have been lost with another server.
local function guard_wait()
  if not identify() then return 0 end
  local known, changed, at = unpack(redis.call('HMGET', fence, 'run_id', 'changed_run_id', 'changed_at'))
  if known == run_id then return 0 end
  if not known then
    return math.max(0, ttl - (uptime - 1) * 1000) -- uptime is the difference of two rounded clocks: up to 1 s too long
  end
  at = changed == run_id and tonumber(at or '')
  if not at or at > now then
    redis.call('HSET', fence, 'changed_run_id', run_id, 'changed_at', integer(now))
    return ttl
  end
  return math.max(0, math.ceil((at - now) / 1000) + ttl)
end

-- Let this server count as the one that last acted on the lease.
local function vouch()
  if (run_id or identify()) and redis.call('HGET', fence, 'run_id') ~= run_id then
    redis.pcall('HSET', fence, 'run_id', run_id) -- refused when memory is full: the guard then stays shut, which is safe
    redis.call('HDEL', fence, 'changed_run_id', 'changed_at')
  end
end
