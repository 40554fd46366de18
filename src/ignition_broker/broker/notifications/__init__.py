"""Tells others of what happens to grants: webhooks, Slack, e-mail, event streams."""
