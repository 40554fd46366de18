"""What a refresh means for the callers who wait for it, once it is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.broker.errors import BrokerError
from ignition_broker.model import IssuedToken


class ReadAgain:
    """The row may have changed: read it again, and believe what it says."""


@dataclass(frozen=True, slots=True)
class RetryNow:
    """The answer was lost, and no live token is at stake: try once more at once.

    ``failure``: what to raise where that try can't be made.
    """

    failure: BrokerError


@dataclass(frozen=True, slots=True)
class NothingToServe:
    """The answer's new refresh token is stored, but it brought no access token to hand out.

    ``failure``: what to raise.
    """

    failure: BrokerError


RefreshResult = IssuedToken | ReadAgain | RetryNow | NothingToServe | BrokerError
"""A `BrokerError` is a value here: the refresh failed, but somebody else may have stored a newer
token meanwhile."""
