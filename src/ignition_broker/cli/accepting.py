"""The end of a listening socket: nobody who has a connection is sent away."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

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


def accept_waiting(listener: socket.socket) -> list[socket.socket]:
    """Those whose handshake is over and whom nobody has accepted yet."""
    accepted: list[socket.socket] = []
    listener.setblocking(False)
    while True:
        try:
            connection, _address = listener.accept()
        except ConnectionAbortedError:
            continue  # It was the caller's own doing.
        except OSError:
            return accepted
        connection.setblocking(False)
        accepted.append(connection)
