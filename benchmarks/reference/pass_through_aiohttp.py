"""The same over aiohttp."""

import os

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from benchmarks.reference.pass_through import NOT_PASSED_ON

ORIGIN = os.environ["UPSTREAM_URL"]
sessions = []


async def app(scope, receive, send):
    if not sessions:
        sessions.append(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1000),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=1 << 17,
            )
        )
    headers = CIMultiDict(
        (name.decode(), value.decode())
        for name, value in scope["headers"]
        if name not in NOT_PASSED_ON
    )
    headers["authorization"] = "Bearer " + "x" * 43
    response = await sessions[0].request(
        scope["method"],
        URL(ORIGIN + scope["raw_path"].decode(), encoded=True),
        headers=headers,
        allow_redirects=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )
    headers = [
        (name.lower(), value)
        for name, value in response.raw_headers
        if name.lower() not in NOT_PASSED_ON
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    async for chunk in response.content.iter_any():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
