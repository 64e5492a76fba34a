"""Tests of pipeline/clients/redact.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients.redact import MASK, redact


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abc123XYZ.",
        "Incorrect API key provided: sk-proj-****XYZ.",
        "header was Authorization: Bearer abc.def.ghi",
        "secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    ],
)
def test_what_looks_like_a_key_is_masked(text: str) -> None:
    """Keys are taken out even where we do not know them, also those that a provider has half hidden."""
    told = redact(text)
    assert MASK in told
    assert not any(part in told for part in ("XYZ", "abc", "MfKQ"))


@given(st.text("abcXYZ0123456789-_+/=.:!", min_size=8, max_size=40), st.text(max_size=20))
def test_a_known_secret_never_shows(secret: str, around: str) -> None:
    """Whatever a secret looks like, and wherever it stands, it is gone."""
    assert secret not in redact(f"{around} {secret} {around}", secret).replace(MASK, "")


def test_reasons_are_one_short_line() -> None:
    """A page of text becomes one line of bounded length."""
    told = redact("a\n b\t" + "c" * 1_000)
    assert told.startswith("a b c")
    assert len(told) == 300
