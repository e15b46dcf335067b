-- Returns what a client has said about itself, as introduce.lua wrote it under KEYS[1]: fields and
-- their values. Returns nothing if there is no record, or if the key holds some other text.

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
