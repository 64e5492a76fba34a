"""Tests of pipeline/stages/sentences.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.sentences import lines, sentences, words


def told(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [text[start:end] for start, end in sentences(text, 0, len(text))]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith and Prof. Meier met Mr. Brown at 3 p.m. on Monday.",
        "It takes a number, e.g. 3.14 or 2.71, and rounds it.",
        "Das gilt z. B. Montags, d. h. am 3. Oktober bzw. Dienstags.",
        "See https://example.org/a.b?c=d! for more.",
        "J. R. Tolkien wrote it, cf. Fig. 4 and No. 12 there.",
        "The U.S. Army, Acme Inc. Limited and St. Peter.",
        "\u201cWhy?\u201d she asked.",
        "It went on ... and on.",
        "Version 1.2.3 of the file a.txt",
        "No end at all",
    ],
)
def test_what_is_no_end(text: str) -> None:
    """Abbreviations, initials, dates, decimals, addresses and quoted questions do not end a sentence."""
    assert told(text) == [text]


@pytest.mark.parametrize(
    "text,expected",
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        (
            "He said \u201cGo.\u201d Then (it was late.) They went.",
            ["He said \u201cGo.\u201d", "Then (it was late.)", "They went."],
        ),
        ("It was 2020. Then it ended.\nReally.", ["It was 2020.", "Then it ended.", "Really."]),
        (
            "\u4eca\u65e5\u306f\u3002\u660e\u65e5\u3082\uff01\u300c\u306f\u3044\u3002\u300d\u3068",
            ["\u4eca\u65e5\u306f\u3002", "\u660e\u65e5\u3082\uff01", "\u300c\u306f\u3044\u3002\u300d", "\u3068"],
        ),
        ("Wait... Then go.", ["Wait...", "Then go."]),
        ("  One.   Two.  ", ["One.", "Two."]),
        ("**Bold.** Plain.", ["**Bold.**", "Plain."]),
        (" \n ", []),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    """Stops with white space behind them, quotes and brackets included; Chinese and Japanese stops without."""
    assert told(text) == expected


@given(st.text("aB. \n\u3002\"'3", max_size=200))
def test_no_part_loses_anything(text: str) -> None:
    """Sentences, lines and words in order hold all but white space, and neither begin nor end with it."""
    for parts in (sentences(text, 0, len(text)), lines(text, 0, len(text)), words(text, 0, len(text), 5)):
        found = [text[start:end] for start, end in parts]
        assert "".join("".join(found).split()) == "".join(text.split())
        assert all(part == part.strip() != "" for part in found)


@pytest.mark.parametrize("text", ["." * 200_000, ".\"'" * 70_000, ". " * 5_000, " " * 200_000 + "."])
def test_junk_is_read_once(text: str) -> None:
    """Rows of dots, quotes and spaces are no trap: a search that reads them again and again would never end here."""
    assert "".join("".join(told(text)).split()) == "".join(text.split())
