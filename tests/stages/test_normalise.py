"""Tests of pipeline/stages/normalise.py."""

from __future__ import annotations

import random
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


@pytest.mark.parametrize("marks", ["\u0301\u0327", "\u0f73\u0301\u0327", "\u0344\u0316\u05b0\u3099"])
def test_long_runs_of_marks_are_as_unicode_has_them(marks: str) -> None:
    """What is put into order before comes to the same as without that, on letters of any script and on none."""
    draw = random.Random(3)
    for letter in ("a", "\u01d6", "\u0398", "\u6f22", "\uac00", "\u0f71", "\n"):
        text = "x" + "".join(letter + "".join(draw.choices(marks, k=draw.randint(1, 99))) for _ in range(20))
        assert normalise(text) == unicodedata.normalize("NFC", text).strip()


def test_a_long_run_of_marks_is_read_once() -> None:
    """The canonical order of a hundred thousand marks, which `unicodedata` alone would need minutes for."""
    text = "a" + "\u0301\u0327" * 50_000
    assert normalise(text) == "\u00e1" + "\u0327" * 50_000 + "\u0301" * 49_999
