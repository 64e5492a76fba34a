"""The offline estimate of tokens, and how the limits stand to each other."""

from __future__ import annotations

import pytest
from hypothesis import given

from pipeline.core.limits import (
    MAX_COPY_BYTES,
    MAX_FOREIGN_BYTES,
    MAX_FOREIGN_COPY_BYTES,
    MAX_INPUT_CHARACTERS,
    MAX_MESSAGE_BYTES,
    MAX_RECORD_BYTES,
    estimate_tokens,
)
from tests.core.strategies import texts


@pytest.mark.parametrize("text, tokens", [("", 0), ("a", 1), ("abc", 1), ("abcd", 2), ("日本", 2), ("ab日", 2)])
def test_tokens_are_estimated(text: str, tokens: int) -> None:
    """A third of the ASCII characters, rounded up, and one for every other."""
    assert tokens == estimate_tokens(text)


@given(texts, texts)
def test_more_text_is_never_fewer_tokens(text: str, more: str) -> None:
    """The estimate grows with the text, at either end, and by no more than the added text alone."""
    grown = estimate_tokens(text + more)
    assert grown == estimate_tokens(more + text)
    assert max(estimate_tokens(text), estimate_tokens(more)) <= grown <= estimate_tokens(text) + estimate_tokens(more)


@given(texts)
def test_any_text_costs_at_least_a_token_and_none_costs_nothing(text: str) -> None:
    """Nothing but the empty text is free, and no text has more tokens than characters."""
    assert bool(text) == (estimate_tokens(text) >= 1)
    assert estimate_tokens(text) <= len(text)


def test_the_limits_leave_room_for_each_other() -> None:
    """What may be written may be decoded, a copy has room for more headers, and the longest input fits in a record."""
    assert MAX_MESSAGE_BYTES <= MAX_RECORD_BYTES < MAX_COPY_BYTES
    assert MAX_FOREIGN_BYTES + MAX_COPY_BYTES - MAX_MESSAGE_BYTES <= MAX_FOREIGN_COPY_BYTES
    assert 4 * MAX_INPUT_CHARACTERS < MAX_MESSAGE_BYTES
