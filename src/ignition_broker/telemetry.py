"""Logging and metrics."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ignition_broker.grant_ids import SEPARATOR, client_of, tenant_of
from ignition_broker.redaction import Redactor

log = structlog.get_logger(__name__)


def configure_logging(
    level: str, format_: Literal["auto", "json", "console"], *, secrets: Iterable[str] = ()
) -> None:
    """Writes one line for each event to stderr, also for the standard library's log records and for
    uncaught exceptions.

    ``level``: such as ``INFO``. ``format_``: ``auto`` is ``console`` if stderr is a terminal, else
    ``json``. ``secrets`` are masked wherever they occur, beside everything that looks like one.
    """
    as_console = format_ == "console" or (format_ == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _with_tenant_and_client,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if as_console
        else structlog.processors.JSONRenderer()
    )
    handler = LineHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # The values of local variables may be tokens.
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                )
                if not as_console
                else structlog.processors.format_exc_info,
                Redactor(secrets),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    sys.excepthook = _log_uncaught
    # At INFO and DEBUG these log whole requests, with headers and URLs.
    for chatty in ("httpx", "httpcore", "hpack", "asyncio", "sqlalchemy", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _with_tenant_and_client(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Where ``tenant`` is the id of a grant at another client, the tenant and the client apart."""
    grant = event.get("tenant")
    if isinstance(grant, str) and SEPARATOR in grant:
        event["tenant"], event["client"] = tenant_of(grant), client_of(grant)
    return event


class LineHandler(logging.StreamHandler[TextIO]):
    """Reports a line that can't be written without its content, which the standard library's report
    would print unmasked."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"a log line of {record.name} could not be written\n")


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("crashed", exc_info=(kind, error, trace))


class RequestCounts(Collector):
    """Counts answered requests in a plain dictionary.

    Every request is counted, on one thread. The library's counters would take a lock and look up
    labels each time.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str, int], int] = defaultdict(int)

    def count(self, route: str, method: str, status: int) -> None:
        self._counts[route, method, status] += 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "broker_http_requests",
            "Requests answered, by route and status.",
            labels=["route", "method", "status"],
        )
        for (route, method, status), number in self._counts.items():
            family.add_metric([route, method, str(status)], number)
        yield family


class AllowanceCalls(Collector):
    """Calls that take one of a tenant's allowance, by API key and outcome.

    `read_from` says where they are counted; there is none where they are not.
    """

    def __init__(self) -> None:
        self._counted: Callable[[], Iterable[tuple[str, str, int]]] = tuple

    def read_from(self, counted: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        """``counted`` gives key, outcome and number."""
        self._counted = counted

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "broker_allowance_calls",
            "Calls that were sent or refused within a tenant's allowance, by API key.",
            labels=["key", "outcome"],
        )
        for key, outcome, number in self._counted():
            family.add_metric([key, outcome], number)
        yield family


class OpenDescriptors(Collector):
    """How many files and sockets this process has open, and how many it may have.

    The names are those of Prometheus' own collector, which reports nothing once no descriptor is
    left, because counting takes one. This one then reports the limit.
    """

    def collect(self) -> Iterator[GaugeMetricFamily]:
        limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            # Without the one that reads the folder.
            number = len(os.listdir("/proc/self/fd")) - 1
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                return  # not Linux
            number = limit
        yield GaugeMetricFamily(
            "process_open_fds", "Files and sockets that this process has open.", number
        )
        yield GaugeMetricFamily("process_max_fds", "How many it may have open.", limit)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestCounts()
        self.registry.register(self.requests)
        self.allowance = AllowanceCalls()
        self.registry.register(self.allowance)
        self.registry.register(OpenDescriptors())
        self.provider_requests = Histogram(
            "broker_provider_request_seconds",
            "Token requests to Ignition, by OAuth client, kind and outcome.",
            ["client", "kind", "outcome"],
            registry=self.registry,
        )
        self.client_secrets_refused = Counter(
            "broker_client_secrets_refused",
            "Requests whose newest client secret Ignition refused; the one before it was tried.",
            ["client"],
            registry=self.registry,
        )
        self.late_token_requests = Gauge(
            "broker_late_token_requests",
            "Requests to Ignition that go on although callers wait for them no longer.",
            registry=self.registry,
        )
        self.cached_tokens = Gauge(
            "broker_cached_tokens", "Access tokens held in memory.", registry=self.registry
        )
        self.audit_events_lost = Counter(
            "broker_audit_events_lost",
            "Calls that are not in the audit trail, since they could not be held or stored.",
            registry=self.registry,
        )
        self.grants_ending_soon = Counter(
            "broker_grants_ending_soon",
            "Grants without a refresh token whose end was announced, each once a token.",
            registry=self.registry,
        )
        self.database_went_back = Counter(
            "broker_database_went_back",
            "Rows older than what this process had seen, and what was done to them.",
            ["outcome"],
            registry=self.registry,
        )
        self.remembered_answers = Gauge(
            "broker_remembered_answers",
            "Answers of Ignition's kept, encrypted, for a database that goes back.",
            registry=self.registry,
        )
        self.notifications = Counter(
            "broker_notifications",
            "Tries to deliver events, by the destination's kind and what came of it.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.is_listening = Gauge(
            "broker_listening", "1 while changes are heard of by LISTEN.", registry=self.registry
        )
