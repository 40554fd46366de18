"""The least that an ASGI app can do: one JSON body, the size of a token's."""

BODY = (
    b'{"tenant": "acme", "access_token": "' + b"x" * 43 + b'", "token_type": "Bearer", '
    b'"expires_at": "2030-01-01T00:00:00.000000Z", "expires_in": 3600, "scope": "read write"}'
)
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(BODY)).encode()),
    (b"cache-control", b"no-store"),
]


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
