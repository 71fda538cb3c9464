-- The beginning of every script except disable, enable and history. `call`, this prelude and the script are sent as one
-- text.
--
-- KEYS[1]  the lease's key: the id of the holder, a plain string with a TTL
-- KEYS[2]  the lease's fence, a hash without a TTL: token (the last one), holder (of that token), tenure (the attempt
--          that acquired or adopted that term), run_id and replid (of the server that last acted on the lease), changed
--          (another server that was seen since), changed_at (µs: when that server was first seen), others (names and
--          times of servers seen before that server), beat (µs: with MIN_REPLICAS, the last renewal that did not extend
--          the key), recorded (with MIN_REPLICAS: the last token whose acquire is in the history), step_down (the
--          token of the term that an operator asked its holder to give up), disabled_by, disabled_reason and
--          disabled_until (see `disable`)
-- ARGV[1]  our instance id
-- ARGV[2]  the lease's ttl in ms
-- ARGV[3]  the deadline in the server's time, µs: after it the script changes nothing
-- ARGV[4]  '1' with the failover guard
-- ARGV[5]  our term's token; '' without a term
-- ARGV[6]  our term's tenure, or the tenure of the term to acquire
-- ARGV[9]  the ms for which an old primary may serve after a promotion; 0 if the safety margin covers that time
-- `renew` and `release` explain ARGV[7], ARGV[8] and ARGV[10]; `fence` uses ARGV[7] and ARGV[8] in another way.
--
-- `acquire`, `renew`, `release` and `relay` return one line, which a client reads several times faster than a table.
-- Its words are separated by spaces: outcome, token or '-', tenure or '-', ttl left in ms (-1 without ttl, -2 without
-- key), server time in µs, ms to wait, guard ('on', 'off', 'unavailable', or '-' if it was not checked), notice of a
-- release ('sent', 'refused', or '-' without a release), history ('kept', 'refused', or '-' if there was nothing to
-- append), the number of candidates that watch the lease, the number of those with a direct watch (both '-' if they
-- were not counted), holder (may be empty).
--
-- No script stops halfway. If Redis refuses a command that a script needs, the script has changed nothing yet, except
-- perhaps the guard's notes about servers. All other commands use pcall, so a refusal does not stop the script.
local key, fence = KEYS[1], KEYS[2]
local id, ttl, deadline, guarding = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local token, tenure = ARGV[5], ARGV[6]
local guard_time = ttl + (tonumber(ARGV[9] or '') or 0)
local day = 86400 * 1000000 -- µs

local clock = call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2]) -- below 2^53, exact
local function integer(number) return string.format('%.0f', number) end -- tostring would give 1.79e+15

local holder, left, last, last_holder, last_tenure = false, -2, false, false, false
local recorded, step_down = false, false
local guard, notice, history, watchers, direct = guarding and '-' or 'off', '-', '-', '-', '-'

local function whole(text) return text and #text <= 32 and string.match(text, '^%d+$') or '-' end
local function word(text) return text and #text <= 64 and string.match(text, '^[^ ]+$') or '-' end

local function answer(outcome, wait)
  return table.concat({outcome, whole(last), word(last_tenure), integer(left), integer(now), integer(wait or 0), guard,
                       notice, history, watchers, direct, holder and string.sub(holder, 1, 256) or ''}, ' ')
end

local function disabled() return holder and string.upper(holder) == 'DISABLED' end

-- Read the fence. Returns the problem that prevents a new token from being derived from it, or nothing.
local function read_fence()
  local kind = call('TYPE', fence).ok
  if kind ~= 'none' and kind ~= 'hash' then return 'bad_fence' end
  last, last_holder, last_tenure, recorded, step_down =
    unpack(call('HMGET', fence, 'token', 'holder', 'tenure', 'recorded', 'step_down'))
  local digits = last and string.match(last, '^0*(%d+)$') -- without the leading zeros that a person may have typed
  if last and not digits then return 'bad_fence' end
  last = digits or last
  if last and tonumber(last) > now + day then return 'fence_ahead' end -- every later token would be too far ahead
end

-- Read the lease. Returns an outcome that ends the script at once, or nothing.
local function read()
  if now > deadline then return 'late' end
  local kind = call('TYPE', key).ok
  if kind ~= 'none' and kind ~= 'string' then return 'wrong_type' end
  holder, left = call('GET', key), call('PTTL', key)
  local problem = read_fence()
  return problem and disabled() and 'disabled' or problem -- an operator disables a lease to repair its fence
end

-- A direct watch subscribes to the first channel, and a relayed watch only to the second. A direct watch of a candidate
-- also subscribes to the third channel. Nothing is published there: the number of its subscribers is the number of
-- candidates that can relay a notice. Operators, and candidates of version 0.1.0, relay nothing, and subscribe to the
-- first channel only. All names end in ':changed', so that a user's right to the channels '*:changed' covers them.
local direct_channel, relayed_channel = key .. ':changed', key .. ':vacant:changed'
local direct_counter = key .. ':direct:changed'

-- Count the candidates that watch the lease: these numbers decide by how much each candidate delays its calls after a
-- notice, and which candidates have a direct watch. If the user lacks the right to PUBSUB, no candidate delays its
-- calls, and all have a direct watch. Returns the numbers of direct and of relayed watches, or nothing.
local function count_watchers()
  local counted = redis.pcall('PUBSUB', 'NUMSUB', direct_counter, relayed_channel, direct_channel)
  if type(counted[6]) ~= 'number' then return end
  local with_direct, with_relayed = counted[2], counted[4]
  if with_direct == 0 then with_direct = counted[6] end -- a user may have the right to the first channel only
  watchers, direct = integer(with_direct + with_relayed), integer(with_direct)
  return with_direct, with_relayed
end

local function publish_vacant() redis.pcall('PUBLISH', relayed_channel, 'vacant') end

local function held_otherwise()
  count_watchers()
  if not holder then return 'vacant' end
  if holder == id then return 'superseded' end
  return disabled() and 'disabled' or 'held'
end

local function ours() return holder == id and last_holder == id and last end -- a term of this id

local function our_term() return ours() and last == token and last_tenure == tenure end -- the caller's term

local function stepping_down() return last and step_down and string.match(step_down, '^0*(%d+)$') == last end

-- Identify this server: its run id names the process; its replid names its period as a primary (each promotion makes
-- a new replid). Returns nothing if the guard is off, or if a script may not call INFO.
local run_id, replid, uptime, promoted
local function identify()
  if run_id then return true end
  local server = guarding and redis.pcall('INFO', 'server')
  local replication = guarding and redis.pcall('INFO', 'replication')
  if type(server) == 'string' and type(replication) == 'string' then
    uptime = tonumber(string.match(server, 'uptime_in_seconds:(%d+)'))
    run_id = uptime and string.match(server, 'run_id:(%w+)')
    replid = string.match(replication, 'master_replid:(%w+)') or ''
    promoted = string.match(string.match(replication, 'master_replid2:(%w+)') or '', '[^0]')
  end
  if guarding then guard = run_id and 'on' or 'unavailable' end
  return run_id
end

-- The time at which this server was first seen, if another server acted last. Several servers may alternate behind one
-- address. The note of one server does not replace the note of another; otherwise the guard would never end.
local function first_seen(changed, at, others)
  local name = run_id .. replid
  local seen = tonumber(changed == name and at or changed and string.match(others or '', name .. '=(%d+)') or '')
  if seen and seen <= now then return seen end
  local notes = changed and changed ~= name and string.match(at or '', '^%d+$') and changed .. '=' .. at
  if notes then
    if others then notes = notes .. ' ' .. others end
    if #notes > 900 then notes = string.match(notes, '^(.*) ') end
    call('HSET', fence, 'others', notes)
  end
  call('HSET', fence, 'changed', name, 'changed_at', integer(now))
  return now
end

-- The failover guard: the ms for which no new term may start, because a write may have been lost with another server,
-- or an old primary may still serve.
local function guard_wait()
  if not identify() then return 0 end
  local run, repl, changed, at, others =
    unpack(call('HMGET', fence, 'run_id', 'replid', 'changed', 'changed_at', 'others'))
  if run == run_id and (repl or replid) == replid then return 0 end
  if not run and not changed and not promoted then
    return math.max(0, guard_time - (uptime - 1) * 1000) -- uptime may be up to 1 s too long, because it is rounded
  end
  return math.max(0, math.ceil((first_seen(changed, at, others) - now) / 1000) + guard_time)
end

-- Record this server as the one that last acted on the lease. If Redis refuses the record, because its memory is full,
-- the guard still refuses new terms, which is safe. A note of another server that cannot be removed is harmless: a
-- server that is promoted again has another replid, so it does not match the note.
local function vouch()
  if not identify() then return end
  local run, repl, changed = unpack(call('HMGET', fence, 'run_id', 'replid', 'changed'))
  if run ~= run_id or repl ~= replid then redis.pcall('HSET', fence, 'run_id', run_id, 'replid', replid) end
  if changed then redis.pcall('HDEL', fence, 'changed', 'changed_at', 'others') end
end

-- Append an event of the last term to the lease's history, as the last step of a script. Nothing depends on the append,
-- and a refusal loses only the entry. The stream is not in KEYS: otherwise a user without a right to it could call no
-- script.
local function record(event, reason)
  local stream = 'history:' .. (string.find(key, '{', 1, true) and key or '{' .. key .. '}') -- named like the fence
  local function append(...)
    return redis.pcall('XADD', stream, ...)
  end
  local entry = {'MAXLEN', '~', '1000', '*', 'event', event, 'token', last, 'holder', id, 'reason', reason}
  -- While the slot migrates, the stream may still be at the other node, and a second stream here would stop the
  -- migration. So a release appends only to a stream that exists.
  local appended = event == 'release' and append('NOMKSTREAM', unpack(entry))
  -- Redis before 6.2 does not know NOMKSTREAM.
  if event ~= 'release' or type(appended) == 'table' and appended.err then appended = append(unpack(entry)) end
  history = type(appended) == 'table' and appended.err and 'refused' or 'kept'
end
