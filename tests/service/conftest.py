"""Both ends of the proxy on raw sockets; a module points `IGNITION_API_URL` at ``upstream``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.conftest import Broker
from tests.service.wire import RawCaller, RawUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    server = RawUpstream().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def caller(broker: Broker) -> RawCaller:
    broker.connect("acme")
    return RawCaller(broker.port, broker.make_key("proxy", ["proxy"], ["acme"]))
