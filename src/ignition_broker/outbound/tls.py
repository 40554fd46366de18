"""Whose certificates are believed, and nothing less than verified."""

from __future__ import annotations

import os
import ssl

import certifi


def client_context(*protocols: str) -> ssl.SSLContext:
    """With the machine's authorities as OpenSSL finds them (``SSL_CERT_FILE``, ``SSL_CERT_DIR``);
    where there are none, Mozilla's. ``protocols``: to offer by ALPN (RFC 7301)."""
    context = ssl.create_default_context()
    if not _has_authorities():
        context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(protocols)
    return context


def _has_authorities() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile) or bool(paths.capath and os.listdir(paths.capath))
