"""Which OAuth client a grant is of."""

from __future__ import annotations

import pytest
from tests.unit.broker.grants.fakes import ScriptedProvider, Stand

from ignition_broker.broker.errors import UnknownClient
from ignition_broker.broker.grants.oauth_clients import OAuthClient, OAuthClients


def two_clients(stand: Stand) -> OAuthClients:
    sandbox = ScriptedProvider()
    sandbox.can_revoke = True
    return OAuthClients(
        {
            "sandbox": OAuthClient(sandbox, stand.breaker),  # type: ignore[arg-type]
            "default": stand.clients.named("default"),
        }
    )


def test_a_grants_id_says_which_client_it_is_of():
    stand = Stand()
    clients = two_clients(stand)
    assert clients.names == ["default", "sandbox"]
    assert clients.of("acme") is clients.named("default")
    assert clients.of("acme@sandbox") is clients.named("sandbox")
    assert [clients.can_revoke(grant) for grant in ("acme", "acme@sandbox")] == [False, True]


def test_a_client_that_the_settings_no_longer_name_is_unknown_and_revokes_nothing():
    clients = two_clients(Stand())
    with pytest.raises(UnknownClient, match="'gone'") as caught:
        clients.of("acme@gone")
    assert caught.value.tenant == "acme"
    with pytest.raises(UnknownClient):
        clients.named("gone")
    assert not clients.can_revoke("acme@gone")
