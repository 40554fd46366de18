"""uvicorn's reading of HTTP/1.1, made fit for a proxy."""

from __future__ import annotations

from ignition_broker.server.draining import DrainingHttpProtocol

PREFIX = b"/proxy/"
# In the scope's state:
HAS_EMPTY_QUERY = "has_empty_query"
BREAK_OFF = "break_off"
# The other end of the connection, whatever a trusted proxy says of the client behind it.
PEER = "peer"


class Nowhere(list[tuple[bytes, bytes]]):
    """Where trailers go: there may be any number of them, and nobody reads them."""

    def append(self, _header: tuple[bytes, bytes]) -> None:
        pass


NOWHERE = Nowhere()


class ProxyHttpProtocol(DrainingHttpProtocol):
    """uvicorn adds trailers to the headers (RFC 9110 section 6.5.1 forbids it) and a Date of its
    own to the API's, drops a '?' with nothing behind it, and writes a head and its body apart."""

    def on_headers_complete(self) -> None:
        DrainingHttpProtocol.on_headers_complete(self)
        if self.parser.should_upgrade():
            return  # Its head is read a second time, without the offer.
        if self._is_draining:
            self.cycle.keep_alive = False
        # The scope keeps the list it has.
        self.headers = NOWHERE
        self.scope["state"][BREAK_OFF] = self._break_off
        self.scope["state"][PEER] = self.client
        if self.scope["raw_path"].startswith(PREFIX):
            self.cycle.default_headers = []
            if self.url.endswith(b"?") and not self.scope["query_string"]:
                self.scope["state"][HAS_EMPTY_QUERY] = True
