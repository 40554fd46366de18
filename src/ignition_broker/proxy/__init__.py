"""Calls passed on to Ignition's API with the tenant's token."""
