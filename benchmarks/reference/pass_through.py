"""The least that an ASGI app can do between two sockets with the client that the proxy uses: no key
is checked, no path judged, no header looked at but the two that can't go on."""

import os

from ignition_broker.outbound.http1_pool import Limits, Pool

upstream = Pool(
    os.environ["UPSTREAM_URL"],
    Limits(
        connect_timeout_seconds=5,
        timeout_seconds=30,
        idle_timeout_seconds=300,
        connections=1000,
        idle_per_tenant=1000,
    ),
)
NOT_PASSED_ON = frozenset(
    {b"host", b"authorization", b"connection", b"keep-alive", b"transfer-encoding"}
)
TOKEN = (b"authorization", b"Bearer " + b"x" * 43)


async def app(scope, receive, send):
    headers = [pair for pair in scope["headers"] if pair[0] not in NOT_PASSED_ON]
    answer = await upstream.send("one", scope["method"], scope["raw_path"], [*headers, TOKEN], None)
    headers = [pair for pair in answer.headers if pair[0] not in NOT_PASSED_ON]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    while not answer.is_whole:
        piece = await answer.read()
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": await answer.read()})
