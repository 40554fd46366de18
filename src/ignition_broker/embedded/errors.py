"""What can go wrong with the embedded Postgres: one class, since its callers can only say so."""


class EmbeddedPostgresError(Exception):
    """One line that says what stands in the way."""
