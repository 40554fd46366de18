"""What the service does: grants connected, kept alive, issued, forgotten. Knows no HTTP status."""
