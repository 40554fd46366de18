"""The life of a grant: connected, issued from, refreshed, revoked, repaired after a restore."""
