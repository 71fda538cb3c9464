-- The beginning of every script: redis.call with errors that name the command, because Redis 6.2 does not name it.
local function call(command, ...)
  local result = redis.pcall(command, ...)
  if type(result) == 'table' and result.err then error(command .. ': ' .. result.err, 0) end
  return result
end
