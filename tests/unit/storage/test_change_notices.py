"""What replicas tell one another through Postgres."""

from __future__ import annotations

import pytest

from ignition_broker.model import GrantStatus
from ignition_broker.storage.change_notices import GrantChange, KeyRevocation


def test_a_changed_grant_names_its_tenant_version_and_status():
    change = GrantChange.parse("acme 7 reauthorization_required")
    assert change == GrantChange("acme", 7, GrantStatus.REAUTHORIZATION_REQUIRED)


def test_a_revoked_key_is_known_by_its_name_and_when_it_was_created():
    assert KeyRevocation.parse("billing 1767225600000001") == KeyRevocation(
        "billing", 1_767_225_600_000_001
    )


@pytest.mark.parametrize("payload", ["", "acme", "acme 7", "acme seven connected", "acme 7 odd"])
def test_a_malformed_change_is_an_error(payload: str):
    with pytest.raises(ValueError, match=r"."):
        GrantChange.parse(payload)
