-- Three tokens for each proxied call, over 200 tenants, each connection waiting its turn.
local delay_ms, number

function init(args)
  delay_ms = tonumber(args[1])
  number = 0
end

function delay()
  return delay_ms
end

function request()
  number = number + 1
  local tenant = "mixed-" .. (number * 7919 % 200)
  if number % 4 == 0 then
    return wrk.format("GET", "/proxy/" .. tenant .. "/1k.json")
  end
  return wrk.format("GET", "/token/" .. tenant)
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("mixed %d %d %f %f %f\n", summary.requests,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency:percentile(99.9) / 1e6))
end
