"""OAuth 2.0 without I/O: requests are built here and answers judged; nothing is sent."""
