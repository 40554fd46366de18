"""Which certificates are trusted."""

from __future__ import annotations

import contextlib
import re
import ssl
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from tests.service.certificates import Authority

from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.tls import client_context
from ignition_broker.storage.errors import StorageFault
from ignition_broker.storage.tls import ssl_argument

SOURCE = Path(__file__).parents[3] / "src" / "ignition_broker"


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


def test_a_further_authority_stands_beside_the_machines(monkeypatch, tmp_path):
    ours, inner = Authority(tmp_path, "ours"), Authority(tmp_path, "inner")
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    egress = Egress(more_authorities=str(inner.certificate))
    for authority in (ours, inner):
        shake_hands(egress.tls(), authority.issue("localhost").server_context(), "localhost")
    assert egress.tls("http/1.1") is egress.tls("http/1.1")


def test_where_one_authority_alone_is_trusted_the_others_prove_nothing(monkeypatch, tmp_path):
    ours, inner = Authority(tmp_path, "ours"), Authority(tmp_path, "inner")
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.certificate))
    egress = Egress(more_authorities=str(ours.certificate)).trusting_only(str(inner.certificate))
    shake_hands(egress.tls(), inner.issue("localhost").server_context(), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(egress.tls(), ours.issue("localhost").server_context(), "localhost")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """In memory. Raises what the client says of the server's certificate."""
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
    objects = [
        client.wrap_bio(*ends[0], server_hostname=host),
        server.wrap_bio(*ends[1], server_side=True),
    ]
    for _ in range(4):
        for own, (there, (_incoming, outgoing)) in enumerate(zip(objects, ends, strict=True)):
            with contextlib.suppress(ssl.SSLWantReadError):
                there.do_handshake()
            ends[1 - own][0].write(outgoing.read())


def verifying_postgres(authorities: Path) -> ssl.SSLContext:
    url = make_url(f"postgresql://u:p@db/broker?sslmode=verify-full&sslrootcert={authorities}")
    context = ssl_argument(url, "verify-full")
    assert isinstance(context, ssl.SSLContext)
    return context


@pytest.mark.parametrize(
    "context_for",
    [
        lambda authorities: client_context("http/1.1", authorities=str(authorities)),
        verifying_postgres,
    ],
    ids=["https", "postgres"],
)
def test_only_subject_alternative_names_count(tmp_path, context_for):
    authority = Authority(tmp_path, "ours")
    context = context_for(authority.certificate)
    named = authority.issue("localhost").server_context()
    shake_hands(context, named, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(context, named, "db.example.com")
    bare = authority.issue("localhost", has_alternative_names=False).server_context()
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(context, bare, "localhost")


def test_no_context_is_made_anywhere_else():
    """Whoever makes one takes care of names, so all of them are made in two places."""
    makers = re.compile(r"SSLContext\(|create_default_context\(|create_ssl_context\(|verify=True")
    found = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if makers.search(file.read_text())
    }
    assert found == {"outbound/tls.py", "storage/tls.py"}


def test_a_file_of_authorities_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageFault, match="sslrootcert"):
        ssl_argument(make_url("postgresql://db/broker"), "verify-full")
    with pytest.raises(StorageFault, match="No such file"):
        verifying_postgres(tmp_path / "none.pem")
    for mode in (None, "require", "prefer", "verify-ca"):
        assert ssl_argument(make_url("postgresql://db/broker"), mode) == mode
