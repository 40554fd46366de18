"""Whose credential makes links and sign-ins, and how the bootstrap admin's is stored."""

from __future__ import annotations

import hashlib

from cryptography.fernet import Fernet

from ignition_broker.broker.admins.bootstrap import BootstrapKeyHashes
from ignition_broker.broker.admins.makers import Makers
from ignition_broker.broker.callers.api_keys import BOOTSTRAP_ADMIN
from ignition_broker.cipher import Cipher
from ignition_broker.model import Caller, Scope
from ignition_broker.storage.makers import Maker

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
ADMIN_KEY = "an admin key of 32 characters or more"
BOOTSTRAP = Caller(BOOTSTRAP_ADMIN, frozenset({Scope.ADMIN}), ("*",), key_hash=b"plain")


def makers(*encryption_keys: str, admin_key: str | None = ADMIN_KEY) -> Makers:
    return Makers(
        Cipher(encryption_keys),
        admin_key=admin_key,
        admin_rules=[b"rule"],
        issuer=None,
        admin_groups=(),
    )


def test_a_key_a_rule_and_a_session_are_named_by_their_hashes():
    key = Caller("jo", frozenset({Scope.ADMIN}), (), key_hash=b"key")
    workload = Caller("jwt:kube/op", frozenset({Scope.ADMIN}), (), rule_hash=b"rule")
    person = Caller("Jo (oidc:u-1)", frozenset({Scope.ADMIN}), ("*",))
    assert makers(OLD).of(key) == Maker(key=b"key")
    assert makers(OLD).of(key, b"session") == Maker(key=b"key", session=b"session")
    assert makers(OLD).of(workload) == Maker(setting=b"rule")
    assert makers(OLD).of(person, b"session") == Maker(session=b"session")


def test_the_bootstrap_key_is_named_by_a_keyed_hash_that_outlives_a_rotation_of_keys():
    before = makers(OLD).of(BOOTSTRAP)
    assert before.key is None
    assert before.setting not in (b"plain", hashlib.sha256(ADMIN_KEY.encode()).digest())
    assert before.setting in makers(NEW, OLD).standing.vouched
    assert makers(NEW, OLD).of(BOOTSTRAP) != before, "the newest encryption key counts"
    assert before.setting not in makers(NEW).standing.vouched
    assert before.setting not in makers(OLD, admin_key="another" * 5).standing.vouched
    assert makers(OLD, admin_key=None).standing.vouched == [b"rule"]


def test_sessions_and_links_know_the_bootstrap_key_by_different_hashes():
    session = BootstrapKeyHashes(Cipher([OLD]), ADMIN_KEY)
    assert session.newest != makers(OLD).of(BOOTSTRAP).setting
    assert session.newest in session
    assert session.newest in BootstrapKeyHashes(Cipher([NEW, OLD]), ADMIN_KEY)
    assert session.newest not in BootstrapKeyHashes(Cipher([OLD]), None)
    assert b"" not in session
