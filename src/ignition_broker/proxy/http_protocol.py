"""uvicorn's reading of HTTP/1.1, made fit for a proxy."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PREFIX = b"/proxy/"
HAS_EMPTY_QUERY = "has_empty_query"


class ProxyHttpProtocol(HttpToolsProtocol):
    """uvicorn adds trailers to the headers (RFC 9110 section 6.5.1 forbids it), a Date of its own
    to the API's, and drops a '?' with nothing behind it."""

    def on_headers_complete(self) -> None:
        HttpToolsProtocol.on_headers_complete(self)
        if self.parser.should_upgrade() and self._should_upgrade():
            return  # A WebSocket's handshake, whose headers are still to be read.
        # The scope keeps the list it has; trailers go into this one, which nobody reads.
        self.headers = []
        if self.scope["raw_path"].startswith(PREFIX):
            self.cycle.default_headers = []
            if self.url.endswith(b"?") and not self.scope["query_string"]:
                self.scope["state"][HAS_EMPTY_QUERY] = True
