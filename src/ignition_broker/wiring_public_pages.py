"""Puts together what the pages behind connect links show."""

from __future__ import annotations

from ignition_broker.return_addresses import parse_origins
from ignition_broker.settings import Settings
from ignition_broker.settings.profiles import scopes_in_words
from ignition_broker.web.public_pages import PublicPages, Sharing


def public_pages(settings: Settings) -> PublicPages:
    sharing = {
        name: Sharing(
            scopes_in_words(client.api_url, client.scopes), is_revoked=client.revoke_url is not None
        )
        for name, client in settings.oauth_clients.items()
    }
    return PublicPages(settings.brand, parse_origins(settings.broker_return_origins), sharing)
