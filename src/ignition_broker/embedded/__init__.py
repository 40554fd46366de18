"""A Postgres server of this process's own, from a PyPI wheel: for ``dev`` and the tests.

Why this wheel, and why root is treated as it is: ``docs/decisions/0001-embedded-postgres.md``.
"""

from ignition_broker.embedded.errors import EmbeddedPostgresError
from ignition_broker.embedded.server import EmbeddedPostgres, StopMode

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "StopMode"]
