from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pipeline.devkit import ports
from pipeline.devkit.ports import HOST, free_ports, port_in_use


@pytest.fixture(params=[HOST, ""], ids=["loopback", "all addresses"])
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
    with socket.create_server((request.param, 0)) as server:
        yield server.getsockname()[1]


def test_a_port_with_a_listener_is_in_use(taken: int) -> None:
    """A listener is seen whether it listens on the loopback address or on all."""
    assert port_in_use(taken)


def test_a_port_is_free_again_when_its_listener_is_gone() -> None:
    """Connections that have ended, and which the kernel remembers for a minute, do not count."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)), server.accept()[0] as accepted:
            accepted.shutdown(socket.SHUT_RDWR)
    assert not port_in_use(port)


def test_free_ports_are_distinct_and_can_be_listened_on_together() -> None:
    """The ports that one call gives never collide."""
    servers = [socket.create_server((HOST, port)) for port in free_ports(20)]
    assert len(servers) == 20
    for server in servers:
        server.close()


def test_free_ports_stay_clear_of_the_near_ends_of_connections() -> None:
    """No outgoing connection can be given one of them: the kernels take theirs from 32768 up."""
    assert all(1024 < port < 32_768 for port in free_ports(50))


def test_a_port_in_use_is_never_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken is passed over; where nothing else is left, the error names the range."""
    [port] = free_ports(1)
    monkeypatch.setattr(ports, "_FIRST", port)
    monkeypatch.setattr(ports, "_LAST", port + 1)
    with socket.create_server((HOST, port)), pytest.raises(OSError, match=f"from {port} to {port}"):
        free_ports(1)
    assert free_ports(1) == [port]
