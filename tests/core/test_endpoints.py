"""Tests of pipeline/core/endpoints.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.endpoints import (
    DAY_SECONDS,
    HEALTHY,
    LAST_ATTEMPT,
    MAX_URL,
    OURSELVES,
    SCHEDULE,
    EndpointState,
    Heard,
    disabling,
    host_of,
    may_reach,
    state_of,
    transition,
)
from pipeline.core.payloads import Control

NOW = 1_800_000_000.0
DAYS = 5.0
BAD, GOOD, GONE = Heard(ok=False, reason="500"), Heard(ok=True), Heard(ok=False, reason="410", gone=True)


def after(standing: Control | None, heard: Heard, now: float = NOW) -> Control | None:
    """Return what stands in the control topic after an attempt."""
    found = transition("crm", standing, heard, now, DAYS)
    return standing if found is None else found.entry


def test_the_schedule_lasts_longer_than_a_day() -> None:
    """Eight attempts over 27 hours and a half: a receiver may be away over a night."""
    assert LAST_ATTEMPT == 8
    assert 27 * 3_600 < sum(SCHEDULE) < 28 * 3_600


def test_a_first_failure_is_noted_and_a_success_takes_it_back() -> None:
    """Later failures change nothing, so that `failing` tells of the first one."""
    failing = after(None, BAD)
    assert state_of(failing) == EndpointState(failing_since=NOW, why="500")
    assert transition("crm", failing, BAD, NOW + 60, DAYS) is None
    assert after(failing, GOOD) is None
    assert transition("crm", None, GOOD, NOW, DAYS) is None
    assert state_of(None) is HEALTHY


def test_days_of_failure_disable_it() -> None:
    """Counted from the first failure, and told with who and why."""
    failing = after(None, BAD)
    assert after(failing, BAD, NOW + DAYS * DAY_SECONDS - 1) is failing
    disabled = state_of(after(failing, BAD, NOW + DAYS * DAY_SECONDS))
    assert (disabled.open, disabled.disabled_since, disabled.by) == (False, NOW + DAYS * DAY_SECONDS, OURSELVES)
    assert disabled.why == "every attempt has failed for 5 days; the last: 500"


def test_an_endpoint_that_is_gone_is_disabled_at_once() -> None:
    """Whether or not it failed before."""
    for standing in (None, after(None, BAD)):
        assert state_of(after(standing, GONE)).word == "disabled"


def test_only_a_person_enables() -> None:
    """An attempt that was under way when it was disabled changes nothing, however it ends."""
    disabled = disabling("crm", "ann", "moved", NOW)
    assert state_of(disabled) == EndpointState(disabled_since=NOW, by="ann", why="moved")
    for heard in (GOOD, BAD, GONE):
        assert transition("crm", disabled, heard, NOW + 1e9, DAYS) is None


@given(st.lists(st.tuples(st.sampled_from([GOOD, BAD, GONE]), st.floats(0, 4 * DAY_SECONDS)), max_size=20))
def test_it_is_disabled_only_for_a_reason(story: list[tuple[Heard, float]]) -> None:
    """By a 410, or by failures alone over all the days; until then its word is that of the last attempts."""
    standing: Control | None = None
    since: float | None = None
    now = NOW
    for heard, seconds in story:
        now += seconds
        before, standing = standing, after(standing, heard, now)
        if state_of(before).open:
            since = None if heard.ok else (now if since is None else since)
            long = since is not None and int(now * 1000) - int(since * 1000) >= DAYS * DAY_SECONDS * 1000 - 1
            word = "ok" if heard.ok else "disabled" if heard.gone or long else "failing"
            assert state_of(standing).word == word
        else:
            assert standing is before


@pytest.mark.parametrize(
    "url,host",
    [
        ("https://hooks.example.com", "hooks.example.com"),
        ("https://Hooks.Example.com/a/b?c=d@e", "hooks.example.com"),
        ("https://hooks.example.com?x", "hooks.example.com"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("HTTPS://hooks.example.com/", "hooks.example.com"),
        ("http://hooks.example.com/", ""),
        ("https://hooks.example.com:8443/", ""),
        ("https://hooks.example.com:443/", ""),
        ("https://user@hooks.example.com/", ""),
        ("https://hooks.example.com\\@evil.example/", ""),
        ("https://hooks.example.com#@evil.example/", ""),
        ("https://hooks.example.com./", ""),
        ("https://localhost/", ""),
        ("https://127.0.0.1/", ""),
        ("https://0x7f.1/", ""),
        ("https://127.1/", ""),
        ("https://[::1]/", ""),
        ("https://hooks.example.com/ x", ""),
        ("https://hooks.example.com/\n", ""),
        ("https://hooks。example。com/", ""),
        ("https://-a.example.com/", ""),
        ("https:/hooks.example.com/", ""),
        ("hooks", ""),
        ("", ""),
        (f"https://hooks.example.com/{'a' * MAX_URL}", ""),
    ],
)
def test_only_plain_https_urls_have_a_host(url: str, host: str) -> None:
    """What two parsers could read in two ways is no URL here; nor is an address, however it is spelt."""
    assert host_of(url) == host


@pytest.mark.parametrize(
    "host,allowed",
    [
        ("hooks.example.com", True),
        ("a.b.example.org", True),
        ("b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("sub.hooks.example.com", False),
        ("hooks.example.com.evil.net", False),
        ("", False),
    ],
)
def test_hosts_are_allowed_by_name_or_below_a_name(host: str, allowed: bool) -> None:
    """A star stands for one label or more, and never for none."""
    assert may_reach(host, ["Hooks.example.com", "*.example.org"]) is allowed
    assert not may_reach(host, [])
