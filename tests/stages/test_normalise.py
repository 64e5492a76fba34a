"""Tests of pipeline/stages/normalise.py."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.normalise import normalise


@pytest.mark.parametrize(
    "raw,text",
    [
        ("Cafe\u0301", "Caf\u00e9"),
        ("a\x00b\x1b[31mc\x7f\x85", "ab[31mc"),
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("  a  ", "a"),
        ("a\ud800b", "ab"),
        ("e\x00\u0301", "\u00e9"),
        ("\u200d👩\u200d🚀", "\u200d👩\u200d🚀"),
        ("\x00\n\x01", ""),
    ],
)
def test_text_is_made_comparable(raw: str, text: str) -> None:
    """One Unicode form, one line end, no controls but newline and tab; joiners of emoji and scripts stay."""
    assert normalise(raw) == text


@given(st.text(st.characters()))
def test_it_is_idempotent_and_encodable(raw: str) -> None:
    """Normal text stays as it is, is NFC, holds no control character and can be written as UTF-8."""
    text = normalise(raw)
    assert normalise(text) == text
    assert unicodedata.is_normalized("NFC", text)
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t" for character in text)
    assert text.encode().decode() == text
