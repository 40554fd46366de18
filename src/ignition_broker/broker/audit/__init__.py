"""The audit trail: what is recorded in it, and how it is verified and exported."""
