"""uvicorn's HTTP/1.1 protocol, changed so that a proxy can be built on it."""

from __future__ import annotations

from ignition_broker.server.connection_draining import DrainingHttpProtocol

PREFIX = b"/proxy/"
# In the scope's state:
HAS_EMPTY_QUERY = "has_empty_query"
BREAK_OFF = "break_off"
# The address at the other end of the connection, even where a trusted proxy names the client.
PEER = "peer"


class DroppedTrailers(list[tuple[bytes, bytes]]):
    """A list that drops what is appended: there may be any number of trailers, and none is used."""

    def append(self, _header: tuple[bytes, bytes]) -> None:
        pass


DROPPED_TRAILERS = DroppedTrailers()


class ProxyHttpProtocol(DrainingHttpProtocol):
    """Corrects four things: uvicorn adds trailers to the headers, which RFC 9110 section 6.5.1
    forbids, and a Date of its own to the API's, drops a '?' that ends the target, and does not tell
    the application the peer's address where a trusted proxy names another."""

    def on_headers_complete(self) -> None:
        DrainingHttpProtocol.on_headers_complete(self)
        if self.parser.should_upgrade():
            return  # Its head is read a second time, without the Upgrade header.
        if self._is_draining:
            self.cycle.keep_alive = False
        # The scope keeps the list it has.
        self.headers = DROPPED_TRAILERS
        self.scope["state"][BREAK_OFF] = self._break_off
        self.scope["state"][PEER] = self.client
        if self.scope["raw_path"].startswith(PREFIX):
            self.cycle.default_headers = []
            if self.url.endswith(b"?") and not self.scope["query_string"]:
                self.scope["state"][HAS_EMPTY_QUERY] = True
