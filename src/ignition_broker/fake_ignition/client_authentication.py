"""Client authentication at the token and revocation endpoints. RFC 6749 section 2.3.1."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from ignition_broker.fake_ignition.errors import OAuthError
from ignition_broker.fake_ignition.options import FakeIgnitionOptions

BASIC_CHALLENGE = {"WWW-Authenticate": 'Basic realm="ignition", charset="UTF-8"'}


@dataclass(frozen=True)
class Credentials:
    """A client id and secret, as shown."""

    client_id: str
    client_secret: str = field(repr=False)


def authenticate_client(
    authorization: str | None, parameters: Mapping[str, str], options: FakeIgnitionOptions
) -> None:
    """Let the registered client pass, by ``client_secret_basic`` or ``client_secret_post``.

    Raises
    ------
    OAuthError
        ``invalid_client``, with a challenge where Basic was tried (section 5.2), or
        ``invalid_request`` where two methods were used at once.
    """
    if authorization is None:
        shown = Credentials(parameters.get("client_id", ""), parameters.get("client_secret", ""))
        if not is_registered(shown, options):
            raise OAuthError("invalid_client", "Unknown client or wrong secret.", status=401)
        return
    if "client_secret" in parameters:
        raise OAuthError("invalid_request", "Use one way of client authentication, not two.")
    basic = parse_basic(authorization)
    if basic is None or not is_registered(basic, options):
        raise OAuthError(
            "invalid_client",
            "Unknown client or wrong secret.",
            status=401,
            headers=BASIC_CHALLENGE,
        )
    if parameters.get("client_id", basic.client_id) != basic.client_id:
        raise OAuthError("invalid_request", "client_id differs from the authenticated client.")


def parse_basic(authorization: str) -> Credentials | None:
    """Read a Basic header whose id and secret are form-encoded."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    client_id, colon, client_secret = decoded.partition(":")
    if not colon:
        return None
    return Credentials(unquote_plus(client_id), unquote_plus(client_secret))


def is_registered(shown: Credentials, options: FakeIgnitionOptions) -> bool:
    """Compare in constant time, the id and each secret always."""
    same_id = hmac.compare_digest(shown.client_id.encode(), options.client_id.encode())
    same = [
        hmac.compare_digest(shown.client_secret.encode(), secret.encode())
        for secret in (options.client_secret, *options.other_client_secrets)
    ]
    return same_id and any(same)
