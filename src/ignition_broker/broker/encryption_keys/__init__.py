"""Encryption keys: which grants are stored under each, and re-encryption with the newest."""
