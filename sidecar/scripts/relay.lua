-- Notify the candidates with a relayed watch if the lease is vacant. A candidate with a direct watch runs this script
-- after a release that asks for a relay.
-- Outcomes: vacant, held, disabled, superseded, wrong_type, bad_fence, fence_ahead.
deadline = now -- never late: a candidate that has made no recent call does not know the server's time
local problem = read()
if problem then return answer(problem) end

if not holder then publish_vacant() end
return answer(held_otherwise())
