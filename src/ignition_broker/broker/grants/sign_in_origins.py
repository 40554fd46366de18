"""What a sign-in at Ignition was begun from, for the page that its callback shows."""

from __future__ import annotations

from collections.abc import Sequence

from ignition_broker.cipher import secret_hash
from ignition_broker.oauth.callback import state_of
from ignition_broker.storage import connect_links
from ignition_broker.storage.connect_links import SignInOrigin
from ignition_broker.storage.database import Database


async def sign_in_origin(
    database: Database, query: Sequence[tuple[str, str]], browser: str | None
) -> SignInOrigin | None:
    """A link or the console; None if this browser began no such sign-in, or it failed before.

    To be asked before the callback is judged, since a failure forgets the sign-in.
    """
    state = state_of(query)
    if not state or not browser:
        return None
    state_hash, browser_hash = secret_hash(state), secret_hash(browser)
    return await database.once(lambda c: connect_links.behind(c, state_hash, browser_hash))
