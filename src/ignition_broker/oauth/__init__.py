"""OAuth 2.0 without I/O: builds requests and judges answers, and sends nothing."""
