"""People who administrate: their sessions and single sign-on, and what they began."""
