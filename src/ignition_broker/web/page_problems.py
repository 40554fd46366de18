"""What the last line of a stream of pages says where it ends early."""

from __future__ import annotations

import math

from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.proxy.forwarded_call import ForwardedCall
from ignition_broker.web.errors import log_unexpected, members_for
from ignition_broker.web.proxy_route import ROUTE


class PageProblems:
    """Records denials and logs errors of our own, as `web.proxy_route` does for whole answers."""

    def __init__(self, audit_recorder: AuditRecorder) -> None:
        self._audit_recorder = audit_recorder

    def members(self, error: Exception, call: ForwardedCall) -> dict[str, object]:
        """The problem's members; ``retry_after`` in seconds where it is known, and
        ``upstream_status`` where the API refused."""
        self._audit_recorder.record_denied_call(error, ROUTE, call.request_id)
        log_unexpected(error, call.request_id, (call.prefix + call.raw_path).decode("latin-1"))
        members: dict[str, object] = members_for(error, call.request_id, call.tenant)
        seconds = getattr(error, "retry_after_seconds", None)
        if seconds is not None:
            members["retry_after"] = math.ceil(seconds)
        status = getattr(error, "upstream_status", None)
        if status is not None:
            members["upstream_status"] = status
        return members
