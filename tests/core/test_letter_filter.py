"""Which letters are meant: each option alone, several together, times and ages."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import ConfigurationError
from pipeline.core.letter import read_head
from pipeline.core.letter_filter import LetterFilter, moment, span
from tests.core.strategies import NOW
from tests.core.test_letter import TRACE, dead

HEAD = read_head(dead())
AT = HEAD.failed_at_ms


@pytest.mark.parametrize(
    "asked, other",
    [
        ({"stages": ("index", "infer")}, {"stages": ("index",)}),
        ({"reasons": ("unexp*", "x")}, {"reasons": ("unex", "*X*")}),
        ({"fingerprints": (HEAD.fingerprint[:6],)}, {"fingerprints": ("f" * 16,)}),
        ({"types": ("quick_answer",)}, {"types": ("quick",)}),
        ({"tenants": ("acme",)}, {"tenants": ("ACME",)}),
        ({"jobs": ("j1",)}, {"jobs": ("j2",)}),
        ({"traces": (TRACE,)}, {"traces": (TRACE[::-1],)}),
        ({"since_ms": AT}, {"since_ms": AT + 1}),
        ({"until_ms": AT + 1}, {"until_ms": AT}),
        ({"states": ("assigned",)}, {"states": ("open", "purged")}),
        ({"letters": (HEAD.id,)}, {"letters": (HEAD.id[:8],)}),
    ],
)
def test_each_option_asks_for_itself(asked: dict[str, Any], other: dict[str, Any]) -> None:
    """A name that fits keeps the letter, one that does not drops it, whatever else is asked."""
    assert LetterFilter(**asked).matches(HEAD, "assigned")
    assert not LetterFilter(**other).matches(HEAD, "assigned")
    assert not LetterFilter(**{"stages": ("infer",), "jobs": ("j1",), **other}).matches(HEAD, "assigned")
    assert LetterFilter(**asked).narrow


def test_an_empty_filter_means_all() -> None:
    """Also a letter that tells nothing."""
    assert LetterFilter().matches(read_head(dead(), open_topic=True))
    assert not LetterFilter().narrow


def test_what_needs_the_value_is_known() -> None:
    """Of an opaque letter the headers can answer only a part; that part is asked first."""
    whole = LetterFilter(stages=("infer",), types=("quick_answer",), tenants=("acme",), jobs=("j1",))
    opaque = read_head(dead(), open_topic=True)
    assert whole.needs_event
    assert not whole.headers_only().needs_event
    assert (False, True) == (whole.matches(opaque), whole.headers_only().matches(opaque))
    assert not LetterFilter(reasons=("*",)).needs_event


@pytest.mark.parametrize(
    "text, expected",
    [
        ("90s", NOW - 90),
        ("15m", NOW - 900),
        ("1.5 h", NOW - 5_400),
        ("3d", NOW - 259_200),
        (" 2w ", NOW - 1_209_600),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T08:00", NOW),
        ("2027-01-15 09:00:00+01:00", NOW),
        ("2027-01-15", NOW - 28_800),
        ("999999999w", 0),
        ("0001-01-01", 0),
    ],
)
def test_times_and_ages_are_read(text: str, expected: float) -> None:
    """ISO 8601, in UTC where no zone is named, or how long ago."""
    assert expected * 1000 == moment(text, NOW, "--since")


@pytest.mark.parametrize("text", ["", "yesterday", "2y", "-3d", "2027-13-01"])
def test_what_is_no_time_is_said(text: str) -> None:
    """The option is named, and what would be one."""
    with pytest.raises(ConfigurationError, match=r"--until .* is no time"):
        moment(text, NOW, "--until")


def test_lengths_of_time_are_read() -> None:
    """As ages are; anything else names the option."""
    assert (90, 5_400) == (span("90s", "--for"), span(" 1.5h", "--for"))
    with pytest.raises(ConfigurationError, match="--for 'soon' is no length of time"):
        span("soon", "--for")


def test_a_filter_that_could_match_nothing_is_refused() -> None:
    """An unknown state, and a time that ends before it begins."""
    assert LetterFilter(states=("open",), since_ms=1, until_ms=2).checked().states == ("open",)
    with pytest.raises(ConfigurationError, match="no state is called 'closed': there are open, assigned"):
        LetterFilter(states=("open", "closed")).checked()
    with pytest.raises(ConfigurationError, match="--since is not before --until"):
        LetterFilter(since_ms=2, until_ms=2).checked()


def test_a_header_in_other_words_is_filtered_as_it_is_shown() -> None:
    """An escaped reason class is compared as people read it."""
    strange = read_head(dead().__class__("p.infer.dlq", 0, 0, None, None, ((f"{h.DEAD}code", b"caf%C3%A9"),)))
    assert LetterFilter(reasons=("café",)).matches(strange)
