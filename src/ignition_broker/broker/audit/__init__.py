"""The audit trail: recording, verification, export and retention."""
