"""What the event loop does not do at a listening socket: accept several, and end in order."""

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
"""Of open connections, from which a turn of the event loop may be long."""
SO_ATTACH_FILTER = 26  # Of Linux; Python has no name for it.
# A classic BPF program over the TCP header: drops what has SYN without ACK, passes the rest.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # the byte of the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of it
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def refuse_new_connections(listener: socket.socket) -> None:
    """From now on no handshake begins at ``listener``; those that have begun can end, and be
    accepted. A caller's kernel tries again after a second, and may find a successor there.

    The socket's every holder is affected. Where the system has no such filters, nothing happens,
    and what comes between the last look and the closing is reset.
    """
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    held = ctypes.create_string_buffer(program, len(program))
    option = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(held))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)


def accept_waiting(listener: socket.socket, *, at_most: int = sys.maxsize) -> list[socket.socket]:
    """Those whose handshake is over and whom nobody has accepted yet."""
    accepted: list[socket.socket] = []
    while len(accepted) < at_most:
        try:
            connection, _address = listener.accept()
        except ConnectionAbortedError:
            continue  # It was the caller's own doing.
        except OSError:
            break
        connection.setblocking(False)  # noqa: FBT003  # its own signature
        accepted.append(connection)
    return accepted


class Acceptor:
    """Accepts beside the event loop where many connections are open.

    libuv accepts one connection a turn of the loop. With a thousand busy connections a turn takes
    a tenth of a second and more, so that a few hundred new ones wait for half a minute. Here each
    turn that accepts one accepts more: as many as are open, so that a burst is taken in within a
    few turns, and workers that have as many share it.
    """

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._make_protocol = make_protocol
        self._listeners: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._has_looked = False

    def listen(self, servers: Iterable[asyncio.Server]) -> None:
        """To all on which ``servers`` listen, until `close`."""
        for server in servers:
            for listening in server.sockets:
                listener = socket.socket(fileno=os.dup(listening.fileno()))
                listener.setblocking(False)  # noqa: FBT003  # its own signature
                self._listeners.append(listener)

    def accept_more(self, open_now: int) -> None:
        """Called at each new connection."""
        if open_now < MANY or self._has_looked:
            return
        self._has_looked = True
        asyncio.get_running_loop().call_soon(self._look_again)
        for listener in self._listeners:
            self._open(accept_waiting(listener, at_most=open_now))

    def refuse_new(self) -> None:
        for listener in self._listeners:
            refuse_new_connections(listener)

    async def close(self) -> None:
        """Accepts what waits. The event loop has stopped listening."""
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
