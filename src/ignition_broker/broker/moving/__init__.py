"""Grants that move in from elsewhere, or to another deployment."""
