"""TCP ports of the loopback address."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from itertools import islice

HOST = "127.0.0.1"

# Below the ranges from which Linux (32768 up) and macOS (49152 up) take the near end of outgoing connections. A client
# that knocks at a port in such a range may be given that very port as its own, connect to itself and keep the server
# out.
_FIRST, _LAST = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """`count` different ports that nothing uses now. Somebody else may take them before you do: be ready to ask again.

    Raises OSError when there are not so many.
    """
    drawn = random.sample(range(_FIRST, _LAST), _LAST - _FIRST)
    found = list(islice((port for port in drawn if not port_in_use(port)), count))
    if len(found) < count:
        raise OSError(errno.EADDRNOTAVAIL, f"fewer than {count} free ports from {_FIRST} to {_LAST - 1} on {HOST}")
    return found


def port_in_use(port: int) -> bool:
    """Whether somebody listens on the port, on the loopback address or on all addresses."""
    return not _can_bind(port) or _answers(port)


def _can_bind(port: int) -> bool:
    with socket.socket() as listener:
        # As a server does: else connections that ended a minute ago would count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _answers(port: int) -> bool:
    """Ask by connecting, too: macOS lets a port be bound here while another program listens on all addresses."""
    with socket.socket() as client:
        client.settimeout(1)
        with contextlib.suppress(OSError):
            client.connect((HOST, port))
            return bool(client.getsockname() != client.getpeername())
    return False
