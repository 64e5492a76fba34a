"""Tests of pipeline/clients/openai_client.py."""

from __future__ import annotations

import pytest

from pipeline.clients.openai_client import check_address, host_of, is_loopback, open_client
from pipeline.core.errors import ConfigurationError

pytestmark = pytest.mark.local


@pytest.mark.parametrize("address", ["", "api.openai.com/v1", "ftp://host/v1", "http://", "http://[", "file:///etc"])
def test_an_address_that_is_none_names_its_variable(address: str) -> None:
    """A mistake in OPENAI_BASE_URL stops the start with a sentence."""
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL"):
        check_address(address)


def test_an_address_with_a_password_is_refused() -> None:
    """The library cannot send both a key and a password; what is wrong is said without them."""
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL") as wrong:
        check_address("https://user:geheim@models.example/v1")
    assert "geheim" not in str(wrong.value)


@pytest.mark.parametrize(
    "address,here",
    [
        ("http://127.0.0.1:8080/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_what_is_on_this_machine(address: str, here: bool) -> None:
    """Loopback addresses are told from others by their form alone."""
    assert is_loopback(address) is here


@pytest.mark.parametrize(
    "address,host",
    [
        ("https://models.example/v1?key=secret", "models.example"),
        ("http://127.0.0.1:8080/v1", "127.0.0.1:8080"),
    ],
)
async def test_a_server_is_named_without_secrets(address: str, host: str) -> None:
    """Reasons name the host, and the port where it says something; never what else stands in the address."""
    async with open_client(address, "key", 1) as client:
        assert host_of(client) == host
