"""The calls that a tenant has at Ignition's API in a window, shared by its API keys. See
docs/allowance.md."""
