"""Tests of pipeline/clients/webhook_address.py; what is refused for its host alone is in test_webhook_ssrf.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clients.webhook_address import ForbiddenAddress, brought, configured, entry_for, plain
from tests.examples import at_most

HOSTS = frozenset(map(plain, ["Hooks.example.com.", "bücher.example"]))


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/in?key=a%2Fb",
        "https://hooks.example.com:443/",
        "https://HOOKS.example.com./",
        "https://hooks。example.com/",
    ],
)
def test_a_host_on_the_list_may_be_brought(url: str) -> None:
    """However its name is spelt: capitals, a dot at the end and other dots make no other host of it."""
    assert plain(brought(url, HOSTS, allow_loopback=False).raw_host or "") == "hooks.example.com"


def test_a_list_may_have_all_hosts_below_a_name() -> None:
    """`*.example.com` is all of them, and neither example.com nor a name that only ends alike."""
    below = frozenset(map(plain, ["*.example.com"]))
    for host in ("a.example.com", "b.a.example.com."):
        assert brought(f"https://{host}/", below, allow_loopback=False)
        assert entry_for(host, below) == "*.example.com"
    for host in ("example.com", "evilexample.com", "example.com.evil.example", "-.example.com"):
        with pytest.raises(ForbiddenAddress):
            brought(f"https://{host}/", below, allow_loopback=False)


def test_names_beyond_ascii_are_compared_as_dns_knows_them() -> None:
    """A list may have either spelling of a name, and so may a request."""
    assert plain("xn--bcher-kva.example") == plain("bücher.example")
    for url in ("https://bücher.example/", "https://xn--bcher-kva.example/"):
        assert brought(url, HOSTS, allow_loopback=False).raw_host == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "url,problem",
    [
        ("https://evil.example/", "is not on the list"),
        ("https://hooks.example.com.evil.example/", "is not on the list"),
        ("https://xhooks.example.com/", "is not on the list"),
        ("https://evil.example/?hooks.example.com", "is not on the list"),
        ("https://evil.example/#hooks.example.com", "is not on the list"),
        ("https://evil.example\\@hooks.example.com/", "backslashes"),
        ("https://evil.example@hooks.example.com/", "user or password"),
        ("https://hooks.example.com@evil.example/", "user or password"),
        ("https://@hooks.example.com/", "user or password"),
        ("https://hooks.example.com:8443/", "must have port 443"),
        ("https://hooks.example.com:22/", "must have port 443"),
        ("https://hooks.example.com:0/", "must have port 443"),
        ("http://hooks.example.com/", "must be https"),
        ("http://hooks.example.com:443/", "must be https"),
        ("gopher://hooks.example.com:443/", "is no https address"),
        ("file:///etc/passwd", "is no https address"),
        ("//hooks.example.com/", "is no https address"),
        ("hooks.example.com", "is no https address"),
        ("https:hooks.example.com", "is no https address"),
        ("https:///hooks.example.com", "is no https address"),
        ("https://hooks.example.com\n/", "must not hold blanks"),
        ("https://hooks.example.com/\r\nx: y", "must not hold blanks"),
        (" https://hooks.example.com/", "must not hold blanks"),
        ("https://hooks.example.com\x00.evil.example/", "must not hold blanks"),
        pytest.param(f"https://hooks.example.com/{'x' * 2_048}", "longer than 2048", id="long"),
        ("https://hooks.example.com%00.evil.example/", "is no name"),
        ("https://[hooks.example.com]/", "is no https address"),
    ],
)
def test_a_request_brings_nothing_else(url: str, problem: str) -> None:
    """Another host, port or scheme is refused, and so is what one parser might read otherwise than the next."""
    with pytest.raises(ForbiddenAddress, match=problem) as refused:
        brought(url, HOSTS, allow_loopback=False)
    assert "example" not in str(refused.value)


def test_the_operator_names_the_port() -> None:
    """A port that a configured URL names is meant; one that a request brings may be that of a service of ours."""
    assert configured("https://hooks.example.com:8443/in", allow_loopback=False).port == 8443
    with pytest.raises(ForbiddenAddress, match="port 0"):
        configured("https://hooks.example.com:0/", allow_loopback=False)


def test_loopback_where_it_is_allowed() -> None:
    """A receiver on this machine may be named or brought, with http and at any port; by its number in one spelling."""
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert configured(f"http://{host}:8080/", allow_loopback=True).port == 8080
        assert brought(f"http://{host}:8080/", {plain(host)}, allow_loopback=True).port == 8080
    with pytest.raises(ForbiddenAddress, match="odd way"):
        configured("https://127.1/", allow_loopback=True)
    with pytest.raises(ForbiddenAddress, match="not on the list"):
        brought("http://127.0.0.1:8080/", HOSTS, allow_loopback=True)


@settings(max_examples=at_most(30))
@given(st.text(alphabet="htps:/@\\.#?[]%0127af-_xn。①", max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text of a request ends in another error; what is read has the host that was asked for."""
    for url in (text, f"https://{text}", f"https://hooks.example.com{text}"):
        try:
            read = brought(url, HOSTS, allow_loopback=False)
        except ForbiddenAddress:
            continue
        assert read.scheme == "https"
        assert read.port == 443
        assert (read.raw_host or "").rstrip(".") in {"hooks.example.com", "xn--bcher-kva.example"}
