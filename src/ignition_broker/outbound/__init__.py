"""HTTP to the servers that the broker asks: Ignition's API, and its OAuth endpoints."""
