"""Whose certificates are believed, and nothing less than verified."""

from __future__ import annotations

import os
import ssl

import certifi


def client_context(
    *protocols: str, authorities: str | None = None, more_authorities: str | None = None
) -> ssl.SSLContext:
    """With the machine's authorities as OpenSSL finds them (``SSL_CERT_FILE``, ``SSL_CERT_DIR``);
    where there are none, Mozilla's.

    Args:
        protocols: to offer by ALPN (RFC 7301).
        authorities: a PEM file of the only ones to trust.
        more_authorities: a PEM file of further ones.

    Raises `OSError` for a file that can't be read.
    """
    context = ssl.create_default_context(cafile=authorities)
    if authorities is None and not _has_authorities():
        context.load_verify_locations(certifi.where())
    if more_authorities is not None:
        context.load_verify_locations(more_authorities)
    if protocols:
        context.set_alpn_protocols(protocols)
    return by_alternative_names_alone(context)


def by_alternative_names_alone(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same, believing a host's name in the certificate's subjectAltName and nowhere else.

    OpenSSL falls back on the subject's common name, which may be any text: authorities check it as
    no host's name, and their name constraints do not cover it (RFC 9525 section 2).
    """
    context.hostname_checks_common_name = False
    return context


def check_authorities(path: str) -> None:
    """Raises `ValueError` where ``path`` is no PEM file with a certificate in it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError("holds no certificate in PEM form") from None
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror})") from None


def _has_authorities() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile) or bool(paths.capath and os.listdir(paths.capath))
