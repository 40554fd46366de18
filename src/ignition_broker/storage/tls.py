"""TLS to Postgres, by libpq's parameters.

asyncpg knows them itself, but with ``verify-full`` it would accept a certificate whose common name,
rather than an alternative name, is the host's (`outbound.tls`).
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from sqlalchemy.engine import URL

from ignition_broker.outbound.tls import by_alternative_names_alone
from ignition_broker.storage.errors import StorageFault


def ssl_argument(url: URL, mode: str | None) -> ssl.SSLContext | str | None:
    """The argument ``ssl`` for `asyncpg.connect`. ``mode``: libpq's ``sslmode``.

    Raises `StorageFault` if no file of certificate authorities is named, or a file can't be read.
    """
    return _verifying(url) if mode in ("verify-full", "verify_full") else mode


def _verifying(url: URL) -> ssl.SSLContext:
    """With libpq's parameters and defaults (PostgreSQL documentation, section 34.19)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["postgresql"])
    authorities = _parameter(url, "sslrootcert") or _home("root.crt")
    certificate = _parameter(url, "sslcert") or _home("postgresql.crt")
    key = _parameter(url, "sslkey") or _home("postgresql.key")
    revoked = _parameter(url, "sslcrl") or _home("root.crl")
    if authorities is None:
        raise StorageFault("sslmode=verify-full needs sslrootcert, the file of an authority")
    try:
        context.load_verify_locations(cafile=authorities)
        if revoked is not None:
            context.load_verify_locations(cafile=revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if certificate is not None:
            password = _parameter(url, "sslpassword") or ""
            context.load_cert_chain(certificate, key, password=lambda: password)
    except OSError as error:
        raise StorageFault(
            f"a file of DATABASE_URL's TLS can't be read: {error.strerror}"
        ) from None
    return by_alternative_names_alone(context)


def _parameter(url: URL, name: str) -> str | None:
    value = url.query.get(name) or os.environ.get(f"PG{name.upper()}")
    return value if isinstance(value, str) else None


def _home(name: str) -> str | None:
    try:
        file = Path.home() / ".postgresql" / name
        return str(file) if file.is_file() else None
    except (OSError, RuntimeError):
        return None
