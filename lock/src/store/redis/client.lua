-- What a client has said of itself, as introduce.lua has written it under KEYS[1].
--
-- Answers fields and their values; nothing if it is not known, or if something else stands there.

local text = redis.call('GET', KEYS[1])
local is_json, record = pcall(cjson.decode, text or '{}')
local answer = {}
if is_json and type(record) == 'table' then
  for field, value in pairs(record) do
    if type(field) == 'string' and type(value) == 'string' then
      answer[#answer + 1] = field
      answer[#answer + 1] = value
    end
  end
end
return answer
