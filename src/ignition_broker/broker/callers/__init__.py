"""Who calls: API keys, workloads' JWTs, what they cover, and the limit on failed attempts."""
