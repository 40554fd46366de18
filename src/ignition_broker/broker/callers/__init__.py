"""Who may call: API keys, workloads' JWTs, what they cover, and the limit on failed attempts."""
