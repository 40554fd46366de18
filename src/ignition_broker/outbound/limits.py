"""How long a pool waits, and how many connections it may hold."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.outbound.errors import TimedOut


@dataclass(frozen=True, slots=True)
class Limits:
    """``connect_timeout_seconds`` bounds the wait for a connection, ``timeout_seconds`` the one for
    the response's headers once the request is out, ``idle_timeout_seconds`` the one between two
    pieces of the answer. Of all ``connections``, in use or idle, one tenant may have
    ``idle_per_tenant`` idle."""

    connect_timeout_seconds: float
    timeout_seconds: float
    idle_timeout_seconds: float
    connections: int
    idle_per_tenant: int

    def exceeded(self, server: str, *, has_answered: bool) -> TimedOut:
        """The error of a request whose deadline has passed. ``server``: its name, capitalised."""
        if has_answered:
            return TimedOut(f"{server}'s answer fell silent for {self.idle_timeout_seconds:g} s.")
        return TimedOut(f"{server} sent no response headers within {self.timeout_seconds:g} s.")
