-- What every script begins with: redis.call, whose errors name the command: Redis 6.2 names no right.
local function call(command, ...)
  local result = redis.pcall(command, ...)
  if type(result) == 'table' and result.err then error(command .. ': ' .. result.err, 0) end
  return result
end
