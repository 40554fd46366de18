"""What is ours of the HTTP server: how uvicorn reads, bounds, answers and stops."""
