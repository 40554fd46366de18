"""uvicorn's reading of HTTP/1.1, made fit for a proxy."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PREFIX = b"/proxy/"


class ProxyHttpProtocol(HttpToolsProtocol):
    """uvicorn adds trailers to the headers (RFC 9110 section 6.5.1 forbids it), and a Date of its
    own to the API's."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.parser.should_upgrade() and self._should_upgrade():
            return  # A WebSocket's handshake, whose headers are still to be read.
        # The scope keeps the list it has; trailers go into this one, which nobody reads.
        self.headers = []
        if self.scope["raw_path"].startswith(PREFIX):
            self.cycle.default_headers = []
