from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from hashlib import sha256

import pytest
from cryptography.fernet import Fernet

from ignition_broker.cipher import Cipher, Misplaced, Unreadable, fingerprint_of


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
    renewed = both.renewed("acme", "c", sealed)
    assert renewed != sealed
    assert Cipher([new]).decrypt("acme", "c", renewed) == "v"
    assert both.renewed("acme", "c", renewed) == renewed
    with pytest.raises(Unreadable):
        Cipher([new]).renewed("acme", "c", sealed)
    for ciphertext in (sealed, renewed):
        with pytest.raises(Misplaced):
            both.renewed("beta", "c", ciphertext)


def test_a_fingerprint_tells_keys_apart_and_tells_nothing_of_them():
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    both = Cipher([new, old])
    assert both.fingerprints == (fingerprint_of(new), fingerprint_of(old))
    assert both.fingerprint == fingerprint_of(new) != fingerprint_of(old)
    assert both.fingerprint_that_opens(Cipher([old]).encrypt("a", "c", "v")) == fingerprint_of(old)
    assert Cipher([new]).fingerprint_that_opens(Cipher([old]).encrypt("a", "c", "v")) is None
    raw = urlsafe_b64decode(old)
    assert re.fullmatch("[0-9a-f]{12}", fingerprint_of(old))
    assert fingerprint_of(old) not in raw.hex()
    assert fingerprint_of(old) not in sha256(raw).hexdigest()


@pytest.mark.parametrize("keys", [[], ["short"], ["x" * 44]])
def test_what_is_no_fernet_key_is_refused(keys):
    with pytest.raises(ValueError, match=r".+"):
        Cipher(keys)
