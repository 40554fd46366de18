"""nginx sends no token to an API whose certificate is not valid for its name."""

from __future__ import annotations

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.service.nginx import Nginx
from tests.service.wire import RawCaller, RawUpstream


def certificate(folder, *names):
    """One that vouches for itself; its file, and what a server needs to show it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "API")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "key.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return file, context


@pytest.mark.parametrize(
    ("names", "is_trusted", "status"),
    [
        (["localhost"], True, 200),
        (["evil.example"], True, 502),
        (["localhost"], False, 502),
    ],
    ids=["in order", "another's name", "vouched for by nobody"],
)
def test_the_api_must_prove_its_name(broker, tmp_path, names, is_trusted, status):
    broker.connect("acme")
    key = broker.make_key(f"tls-{names[0]}-{is_trusted}", ["proxy"], ["acme"])
    file, context = certificate(tmp_path, *names)
    api = RawUpstream(tls=context).start()
    server = Nginx(
        tmp_path / "nginx",
        broker.port,
        f"https://localhost:{api.port}",
        file if is_trusted else None,
    ).start()
    try:
        answer = RawCaller(server.port, key).call(b"GET /v1/me?x=1")
    finally:
        server.stop()
        api.stop()
    assert answer.status == status
    arrived = [(e.target, e.values(b"host")) for e in api.exchanges]
    expected = [(b"/v1/me?x=1", [b"localhost:%d" % api.port])]
    assert arrived == (expected if status == 200 else [])
