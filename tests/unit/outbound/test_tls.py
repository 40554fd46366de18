"""Whose certificates are believed."""

from __future__ import annotations

import ssl

from tests.service.certificates import Authority

from ignition_broker.outbound.tls import client_context


def test_a_machine_without_authorities_believes_mozillas(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert client_context("http/1.1").cert_store_stats()["x509_ca"] > 100


def test_authorities_that_are_there_are_not_added_to(monkeypatch, tmp_path):
    authority = Authority(tmp_path, "ours")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    context = client_context("http/1.1")
    assert context.cert_store_stats()["x509_ca"] == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
