from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from ignition_broker.cipher import Cipher, Misplaced, Unreadable


def test_a_ciphertext_opens_in_its_own_row_and_column_alone():
    cipher = Cipher([Fernet.generate_key().decode()])
    sealed = cipher.encrypt("acme", "access_token", "secret")
    assert cipher.decrypt("acme", "access_token", sealed) == "secret"
    for tenant, column in (("beta", "access_token"), ("acme", "refresh_token")):
        with pytest.raises(Misplaced):
            cipher.decrypt(tenant, column, sealed)
    with pytest.raises(Unreadable):
        Cipher([Fernet.generate_key().decode()]).decrypt("acme", "access_token", sealed)


def test_an_older_key_decrypts_and_is_told_from_the_newest():
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    sealed = Cipher([old]).encrypt("acme", "c", "v")
    both = Cipher([new, old])
    assert both.decrypt("acme", "c", sealed) == "v"
    assert not both.is_newest(sealed)
    assert both.is_newest(both.encrypt("acme", "c", "v"))


@pytest.mark.parametrize("keys", [[], ["short"], ["x" * 44]])
def test_what_is_no_fernet_key_is_refused(keys):
    with pytest.raises(ValueError, match=r".+"):
        Cipher(keys)
