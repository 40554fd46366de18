"""Listening sockets: accepting many connections at once, and closing without resetting any."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable

MANY = 32
"""With so many open connections, one turn of the event loop may take long."""
SO_ATTACH_FILTER = 26  # Linux only; Python has no name for it.
# A classic BPF program over the TCP header: drops segments with SYN and no ACK, passes the rest.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def refuse_new_connections(listener: socket.socket) -> None:
    """Ignores new handshakes at ``listener``; those that have begun can end, and be accepted.

    A caller's kernel tries again after a second and may then reach a successor. All processes that
    share the socket are affected. Where the system has no socket filters, nothing happens, and a
    connection that arrives between the last accept and the close is reset.
    """
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    held = ctypes.create_string_buffer(program, len(program))
    option = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(held))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)


def accept_waiting(listener: socket.socket, *, at_most: int = sys.maxsize) -> list[socket.socket]:
    """Accepts the connections that wait in the backlog, at most ``at_most``."""
    accepted: list[socket.socket] = []
    while len(accepted) < at_most:
        try:
            connection, _address = listener.accept()
        except ConnectionAbortedError:
            continue  # The caller gave up.
        except OSError:
            break
        connection.setblocking(False)  # noqa: FBT003  # its own signature
        accepted.append(connection)
    return accepted


class Acceptor:
    """Accepts further connections whenever the event loop accepts one and many are open.

    libuv accepts one connection per turn of the loop. With a thousand busy connections a turn takes
    a tenth of a second and more, so that a few hundred new ones would wait for half a minute. Here
    a turn accepts up to as many as are open already: a burst is accepted within a few turns, and
    workers with equally many connections share it.
    """

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._make_protocol = make_protocol
        self._listeners: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._has_looked = False

    def listen(self, servers: Iterable[asyncio.Server]) -> None:
        """Accepts on the sockets of ``servers``, until `close`."""
        for server in servers:
            for listening in server.sockets:
                listener = socket.socket(fileno=os.dup(listening.fileno()))
                listener.setblocking(False)  # noqa: FBT003  # its own signature
                self._listeners.append(listener)

    def accept_more(self, open_now: int) -> None:
        """Told of each new connection; ``open_now`` counts the open ones."""
        if open_now < MANY or self._has_looked:
            return
        self._has_looked = True
        asyncio.get_running_loop().call_soon(self._look_again)
        for listener in self._listeners:
            self._open(accept_waiting(listener, at_most=open_now))

    def refuse_new(self) -> None:
        """Ignores new handshakes from now on."""
        for listener in self._listeners:
            refuse_new_connections(listener)

    async def close(self) -> None:
        """Accepts what is left in the backlog, after the event loop has stopped listening."""
        listeners, self._listeners = self._listeners, []
        waiting = [each for listener in listeners for each in accept_waiting(listener)]
        for listener in listeners:
            listener.close()
        self._open(waiting)
        await asyncio.gather(*self._opening)

    def _look_again(self) -> None:
        self._has_looked = False

    def _open(self, accepted: list[socket.socket]) -> None:
        for each in accepted:
            task = asyncio.create_task(self._opened(each))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _opened(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(self._make_protocol, accepted)
