"""Tests of pipeline/devkit/simulator_vectors.py and simulator_texts.py."""

from __future__ import annotations

import math
from struct import pack, unpack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.devkit.simulator_texts import Embedded, Texts
from pipeline.devkit.simulator_vectors import DIMENSIONS, similarity, vector


@pytest.mark.parametrize(
    "text,near,far",
    [
        ("How do I return a parcel?", "Parcels may be returned within 30 days.", "The office is in Ghent."),
        ("What does the plan cost?", "The price of a contract is 20 euros a month.", "Towers are assembled by hand."),
        ("broken door", "A door that shows a fault is repaired by a technician.", "Nobody works on a holiday."),
        ("compartmnet", "The compartments.", "A code opens it once."),
    ],
)
def test_what_is_about_the_same_is_near(text: str, near: str, far: str) -> None:
    """Forms of a word, synonyms and misspellings bring texts nearer than texts about something else are."""
    assert similarity(vector(text), vector(near)) > similarity(vector(text), vector(far)) + 0.05


def test_vectors_are_the_same_in_every_process() -> None:
    """No random seed and no order of a set is in them."""
    numbers = vector("A parcel stays for seven days.", 8)
    assert [round(number, 4) for number in numbers] == [
        -0.0571,
        -0.0699,
        -0.1378,
        -0.0807,
        -0.8219,
        0.2741,
        -0.4636,
        0.028,
    ]


@settings(max_examples=50)
@given(st.text(min_size=1, max_size=40), st.integers(1, 300))
def test_any_text_has_a_direction(text: str, dimensions: int) -> None:
    """A vector of any length has length 1 and survives the way through 32-bit floats."""
    numbers = vector(text, dimensions)
    assert len(numbers) == dimensions
    assert math.hypot(*numbers) == pytest.approx(1.0, abs=1e-5)
    assert unpack(f"<{dimensions}f", pack(f"<{dimensions}f", *numbers)) == numbers


def test_texts_differ_that_share_their_words() -> None:
    """Stop words alone, and what is no word at all, still make different vectors."""
    assert len({vector(text) for text in ("of the", "the of", "?!", "!?", " ", "parcel", "the parcel")}) == 7
    assert len(vector("parcel")) == DIMENSIONS


def test_texts_are_counted() -> None:
    """Each text by its whole content; what was embedded more than once is named."""
    texts = Texts()
    texts.note(["one", "x" * 300, "one"])
    texts.note(["x" * 300 + "y"])
    assert (texts.total, texts.times("one"), texts.times("x" * 300), texts.times("none")) == (4, 2, 1, 0)
    assert [one.text for one in texts.repeated] == ["one"]
    assert [one.text for one in texts.all] == ["one", "x" * 200, "x" * 200]
    assert next(iter(texts.rows())) == {"text": "one", "hash": texts.all[0].hash, "times": 2}
    texts.reset()
    assert (texts.total, texts.all) == (0, ())


def test_the_oldest_texts_are_forgotten() -> None:
    """A journal is bounded."""
    texts = Texts(capacity=2)
    texts.note(["a", "b", "c"])
    assert [one.text for one in texts.all] == ["b", "c"]
    assert texts.all[0] == Embedded("b", texts.all[0].hash, 1)
