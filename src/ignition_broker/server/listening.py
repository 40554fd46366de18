"""Serves on one port or two; uvicorn's own `run` can serve one."""

from __future__ import annotations

import sys

import uvicorn

from ignition_broker.server.graceful_stop import StoppingServer, StopTimes
from ignition_broker.server.uvicorn_internals import STARTUP_FAILURE
from ignition_broker.server.workers import Workers


def listen(config: uvicorn.Config, times: StopTimes, second: tuple[str, int] | None) -> None:
    """Serves ``config``'s app on its own address and on ``second``, (host, port), until the process
    is told to stop. Every worker accepts on both. Exits with `STARTUP_FAILURE` where it can't
    start.
    """
    addresses = [config]
    if second is not None:
        host, port = second
        addresses.append(uvicorn.Config(config.app, host=host, port=port, log_config=None))
    if config.workers > 1:
        has_started = Workers(config, times, [each.bind_socket() for each in addresses]).run()
    else:
        server = StoppingServer(config, times)
        # Given one address, uvicorn binds by itself, since a host name may stand for several.
        server.run([each.bind_socket() for each in addresses] if second is not None else None)
        has_started = server.started
    if not has_started:
        sys.exit(STARTUP_FAILURE)
