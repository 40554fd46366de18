"""HTTP/1.1 to the servers that the broker asks: Ignition's API, and Ignition's OAuth endpoints."""
