-- Tenants at random by Zipf's law (exponent 1): the inverse of its distribution, near enough.
local tenants = 100000
local spread = math.log(tenants)

function request()
  local rank = math.floor(math.exp(math.random() * spread))
  return wrk.format("GET", "/token/tenant-" .. rank)
end
