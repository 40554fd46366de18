"""Which encryption key holds what, and the rotation from one to the next."""
