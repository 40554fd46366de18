"""The pages that a link's holder sees, who has no account here: they name the company, and lead
back to where the link was made for.

Only a page that leads back keeps its opener (`Cross-Origin-Opener-Policy: unsafe-none`) and runs a
script, which tells the opener how it ended; the browser delivers that to the one origin alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from starlette.responses import Response

from ignition_broker.branding import Brand
from ignition_broker.broker.errors import AccountMismatch
from ignition_broker.broker.grants.connect_outcomes import Connected
from ignition_broker.grant_ids import client_of
from ignition_broker.return_addresses import origin_of
from ignition_broker.storage.connect_links import SignInOrigin
from ignition_broker.web.rendering import failure, page

KEEPS_OPENER: Final = {"Cross-Origin-Opener-Policy": "unsafe-none"}
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)

_AFTER_ANOTHER_ACCOUNT: Final = (
    "If you meant another one, begin again with a new link and choose it at Ignition. "
    "If this is the one, tell whoever sent you the link: they can confirm it for a week."
)

Reason = Literal["access-denied", "account-mismatch", "link-ended", "unavailable", "failed"]
"""Why a connect failed, as the opener is told; documented in docs/connect-links.md."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a client of Ignition's is granted. ``scopes``: in words where known, else as they are;
    empty: as Ignition decides. ``is_revoked``: a disconnect revokes it at Ignition."""

    scopes: tuple[str, ...]
    is_revoked: bool


@dataclass(frozen=True, slots=True)
class WayBack:
    """``origin``: of ``address``, and of the page that may have opened the pop-up."""

    address: str
    origin: str

    @property
    def host(self) -> str:
        return urlsplit(self.origin).netloc


@dataclass(frozen=True, slots=True)
class Ending:
    """What the opener is told."""

    status: Literal["connected", "failed"]
    reason: Reason | None = None


class EndPages(Protocol):
    """What a callback shows, to an admin or to a link's holder."""

    def connected(self, connected: Connected, *, asks: bool) -> Response: ...

    def connecting(self, grant: str) -> Response: ...

    def mismatched(self, other: AccountMismatch) -> Response: ...

    def failed(
        self,
        status: int,
        title: str,
        detail: str,
        reason: Reason,
        next_step: str | None = None,
        *,
        grant: str | None = None,
        error: str | None = None,
    ) -> Response: ...


class PublicPages:
    """``origins``: where links may lead back to now. ``sharing``: by the OAuth client's name."""

    def __init__(
        self, brand: Brand, origins: Sequence[str], sharing: Mapping[str, Sharing]
    ) -> None:
        self.brand = brand
        self.origins = tuple(origins)
        self._sharing = sharing

    def link(self, grant: str, return_to: str | None, *, asks: bool) -> Response:
        """The page behind a link that works."""
        return self._page(
            "public/link.html",
            200,
            self._way_back(return_to),
            grant=grant,
            asks=asks,
            sharing=self._sharing.get(client_of(grant), Sharing((), is_revoked=False)),
        )

    def ends(self, begun: SignInOrigin | None) -> EndPages:
        """The console's pages for what was begun there; the public ones for everybody else."""
        if begun is not None and not begun.has_link:
            return _ConsoleEnds()
        return self.ends_of_link(None if begun is None else begun.return_to)

    def ends_of_link(self, return_to: str | None) -> EndPages:
        return _LinkEnds(self, self._way_back(return_to))

    def _way_back(self, return_to: str | None) -> WayBack | None:
        """None as well where the origin was taken off the list since the link was made."""
        origin = None if return_to is None else origin_of(return_to, self.origins)
        return None if return_to is None or origin is None else WayBack(return_to, origin)

    def _page(
        self,
        name: str,
        status: int,
        way_back: WayBack | None,
        ending: Ending | None = None,
        **values: object,
    ) -> Response:
        answer = page(name, status, brand=self.brand, way_back=way_back, ending=ending, **values)
        if way_back is not None:
            answer.headers.update(KEEPS_OPENER)
            if ending is not None:
                answer.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return answer


class _LinkEnds:
    def __init__(self, pages: PublicPages, way_back: WayBack | None) -> None:
        self._pages = pages
        self._way_back = way_back

    def connected(self, connected: Connected, *, asks: bool) -> Response:
        return self._pages._page(
            "public/connected.html",
            200,
            self._way_back,
            Ending("connected"),
            connected=connected,
            asks=asks,
        )

    def connecting(self, grant: str) -> Response:
        return self._pages._page("public/connecting.html", 202, self._way_back, grant=grant)

    def mismatched(self, other: AccountMismatch) -> Response:
        # The error's own text names the tenant.
        account = other.account
        shown = account.id if account.name is None else f"{account.name} ({account.id})"
        return self.failed(
            409,
            "This is another account",
            f"Ignition says that this sign-in is for the account {shown}, and another one was "
            "connected before. Until this one is confirmed, nothing changes.",
            "account-mismatch",
            _AFTER_ANOTHER_ACCOUNT,
            grant=other.tenant,
            error="account-mismatch",
        )

    def failed(
        self,
        status: int,
        title: str,
        detail: str,
        reason: Reason,
        next_step: str | None = None,
        *,
        grant: str | None = None,
        error: str | None = None,
    ) -> Response:
        return self._pages._page(
            "public/failure.html",
            status,
            self._way_back,
            Ending("failed", reason),
            title=title,
            detail=detail,
            next_step=next_step
            or "Nothing was stored. Ask whoever sent you the link for a new one.",
            grant=grant,
            error=error,
        )


class _ConsoleEnds:
    def connected(self, connected: Connected, *, asks: bool) -> Response:
        return page("connected.html", connected=connected, asks=asks)

    def connecting(self, grant: str) -> Response:
        return page("connecting.html", 202, grant=grant)

    def mismatched(self, other: AccountMismatch) -> Response:
        return failure(
            409,
            "This is another account",
            other.detail,
            _AFTER_ANOTHER_ACCOUNT,
            grant=other.tenant,
            error="account-mismatch",
        )

    def failed(
        self,
        status: int,
        title: str,
        detail: str,
        _reason: Reason,
        next_step: str | None = None,
        *,
        grant: str | None = None,
        error: str | None = None,
    ) -> Response:
        next_step = next_step or "Nothing was stored. Begin again from the console."
        return failure(status, title, detail, next_step, grant=grant, error=error)
