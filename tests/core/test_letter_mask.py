"""What of a dead letter is shown to whom has not asked for senders' data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from pipeline.core import headers as h
from pipeline.core.letter_mask import SAFE_FIELDS, is_ours, masked, masked_bytes, shown_header
from tests.core.strategies import few

SECRET = "ann@example.org"
_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["input", "a", "fields"]), inner),
    max_leaves=8,
)


def test_texts_are_told_by_their_length() -> None:
    """Numbers, nulls and the names of fields stay, and so do names that we or the catalog have given."""
    payload: JsonValue = {
        "type": "quick_answer",
        "lane": "batch",
        "input": "Größe?",
        "metadata": {"mail": SECRET},
        "passages": [{"score": 0.5, "text": "", "deleted": False}],
        "key": None,
    }
    assert masked(payload) == {
        "type": "quick_answer",
        "lane": "batch",
        "input": "<6 characters>",
        "metadata": {"mail": "<15 characters>"},
        "passages": [{"score": 0.5, "text": "<0 characters>", "deleted": False}],
        "key": None,
    }
    assert (None, "<3 bytes>") == (masked_bytes(None), masked_bytes(b"abc"))


@few
@given(_values)
def test_no_text_is_left_however_deep(value: JsonValue) -> None:
    """Unless it stands in a field that is known to be safe."""
    assert SECRET not in str(masked(value))
    assert "input" not in SAFE_FIELDS


@pytest.mark.parametrize(
    "name, inside, outside",
    [
        (f"{h.DEAD}reason", True, True),
        (f"{h.DEAD}of-a-newer-version", True, True),
        (h.ATTEMPTS, True, True),
        (h.REPLAY_LETTER, True, True),
        ("x-original-topic", True, True),
        (h.TENANT, True, False),
        (h.CE_ID, True, False),
        (h.BAGGAGE, False, False),
        (h.TRACESTATE, False, False),
        (h.CONVERSATION, False, False),
        ("x-mail", False, False),
        ("kafka_dlt-exception-message", False, False),
    ],
)
def test_headers_of_ours_are_shown(name: str, inside: bool, outside: bool) -> None:
    """On an open topic only what the dead letter adds is ours: the rest is what somebody sent."""
    assert (inside, outside) == (is_ours(name, open_topic=False), is_ours(name, open_topic=True))


def test_headers_are_spelt_for_people() -> None:
    """Text as it is; what is none, or steers a terminal, in hexadecimal."""
    told = [shown_header(value) for value in (None, b"", "Größe".encode(), b"\x1b[2J", b"\xff")]
    assert [None, "", "Größe", "0x1b5b324a", "0xff"] == told
