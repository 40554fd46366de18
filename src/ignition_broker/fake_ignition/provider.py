"""The state that all endpoints of the fake share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ignition_broker.fake_ignition.faults import FaultQueues
from ignition_broker.fake_ignition.ledger import Ledger
from ignition_broker.fake_ignition.options import FakeIgnitionOptions

Clock = Callable[[], float]


@dataclass
class Counters:
    """What the fake counted since its start or the last reset.

    ``token_requests`` and ``api_requests`` count arrivals, those that met a fault included;
    ``refreshes`` counts those for which new tokens were issued, whether or not the answer
    arrived; ``refresh_failures`` those refused with an OAuth error; ``answers_dropped`` the
    requests that were carried out and whose answer a fault took away.
    """

    authorize_requests: int = 0
    approvals: int = 0
    denials: int = 0
    token_requests: int = 0
    client_authentication_failures: int = 0
    code_exchanges: int = 0
    code_reuses: int = 0
    refreshes: int = 0
    refresh_failures: int = 0
    refresh_token_reuses: int = 0
    revoke_requests: int = 0
    revocations: int = 0
    api_requests: int = 0
    api_unauthorized: int = 0
    api_rate_limited: int = 0
    faults_injected: int = 0
    answers_dropped: int = 0


@dataclass
class Provider:
    """One fake Ignition: its options, ledger, clock, queued faults and counters."""

    options: FakeIgnitionOptions
    ledger: Ledger
    clock: Clock
    faults: FaultQueues = field(default_factory=FaultQueues)
    counters: Counters = field(default_factory=Counters)

    def turn_clock(self, seconds: float) -> None:
        """Move the clock forward."""
        clock = self.clock
        self.clock = lambda: clock() + seconds
