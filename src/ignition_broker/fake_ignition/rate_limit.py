"""How many requests one practice has in a window, an hour, and the headers that say so."""

from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ignition_broker.fake_ignition.provider import Provider


@dataclass
class Window:
    """It began with a practice's first request in it."""

    resets_at: int
    used: int = 0


@dataclass
class RateLimit:
    """Counts the requests of every practice, in windows by the fake's clock."""

    provider: Provider
    windows: dict[str, Window] = field(default_factory=dict)

    def use(self, practice: str) -> Window:
        """Count a request of a practice, refused ones included."""
        now = self.provider.clock()
        window = self.windows.get(practice)
        if window is None or now >= window.resets_at:
            window = self.windows[practice] = Window(
                int(now) + self.provider.options.requests_window_seconds
            )
        window.used += 1
        return window


@dataclass(frozen=True)
class Limited:
    """Answers 429 for a practice that is over its limit, and tells the limit on every answer."""

    app: ASGIApp
    limit: RateLimit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        window = self.limit.use(scope["state"]["grant"].practice)
        allowed = self.limit.provider.options.requests_per_hour
        told = {"X-RateLimit-Limit": str(allowed), "X-RateLimit-Reset": str(window.resets_at)}
        if window.used > allowed:
            # As clients of the real one saw it: without Retry-After, and without what remains.
            detail = "The practice has used its requests of this hour."
            answer = JSONResponse({"errors": [{"detail": detail}]}, 429, headers=told)
            self.limit.provider.counters.api_rate_limited += 1
            await answer(scope, receive, send)
            return
        told["X-RateLimit-Remaining"] = str(allowed - window.used)

        async def send_with_limit(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update(told)
            await send(message)

        await self.app(scope, receive, send_with_limit)
