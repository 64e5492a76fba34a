"""Tests of pipeline/stages/outline.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.outline import Kind, blocks, sections


def outline(text: str) -> list[tuple[int, str]]:
    """Return the headings of a text with their levels."""
    return [(block.level, block.title) for block in blocks(text) if block.kind is Kind.HEADING]


def kinds(text: str) -> list[str]:
    """Return what the blocks of a text are."""
    return [block.kind.value for block in blocks(text)]


def test_headings_of_markdown() -> None:
    """Hashes with up to six levels, closed or not, and lines that are underlined."""
    text = "# One #\ntext\n### Three\n\nTwo\n---\nmore\n\nTop\n=\n\nend"
    assert outline(text) == [(1, "One"), (3, "Three"), (2, "Two"), (1, "Top")]


def test_headings_of_plain_text() -> None:
    """Numbered lines and lines in capitals that stand alone over something; numbers tell how deep they are."""
    text = "1. Introduction\n\n1.1 Purpose\n\nTo say something.\n\n2 Scope\n\nAll there is.\n\nOPENING HOURS\n\nNine."
    assert outline(text) == [(8, "1. Introduction"), (9, "1.1 Purpose"), (8, "2 Scope"), (7, "OPENING HOURS")]


@pytest.mark.parametrize(
    "text",
    [
        "#hashtag\n\ntext",
        "####### seven\n\ntext",
        "# " + "long " * 40 + "\n\ntext",
        "```\n# comment\n```\n\ntext",
        "1. Buy milk\n\n2. Buy eggs\n\ntext",
        "1. It is a whole sentence.\n\ntext that follows it and is longer",
        "3 apples\n\ntext that follows it",
        "2024 Was a year\n\ntext that follows",
        "STOP!\n\ntext",
        "A B\n\ntext",
        "USB 3.0 / 5V\n\ntext",
        "API \u8a2d\u8a08\n\ntext",
        "text\n\nTHE END",
        "text\n\n---\n\ntext",
        "---\ntitle: x\n---\n\ntext",
        "- item\n---\n\ntext",
        "| a\n---\n\ntext",
        "...\n---\n\ntext",
    ],
)
def test_what_is_no_heading(text: str) -> None:
    """In doubt a line is text: a wrong heading would cut a text apart."""
    assert outline(text) == []


def test_kinds_of_blocks() -> None:
    """Lists with what is indented below them, tables and code are told from prose."""
    lists, table = "- a\n\n- b\n\n  more of b", "| x | y |\n| - | - |\n| 1 | 2 |"
    text = f"Prose\nin two lines.\n\n{lists}\n\n{table}\n\n~~~ py\na\n\nb\n~~~\n\na | b"
    assert kinds(text) == ["prose", "list", "table", "code", "prose"]


def test_tables_are_told_by_their_rule_or_their_edges() -> None:
    """Lines with bars in them are a table if the second is a rule, or all begin with a bar; else they are prose."""
    assert kinds("a | b\n--- | :-:\n1 | 2") == kinds("| a\n| b") == ["table"]
    assert kinds("a | b\nc | d") == kinds("a | b") == kinds("a | b\nc") == kinds("| a\nb | c") == ["prose"]
    assert kinds("a | b\n|" + " " * 100_000 + "x") == ["prose"]


def test_a_fence_that_is_never_closed_opens_nothing() -> None:
    """The text behind it is read as text, headings included."""
    assert kinds("~~~\ncode\n\n# Heading\n\ntext") == ["prose", "heading", "prose"]
    assert kinds("````\n```\n````\n\ntext") == ["code", "prose"]


def test_headings_without_text_go_to_the_next_section() -> None:
    """A section has text; over it stand the headings that all of its own are under."""
    found = list(sections("lead\n\n# A\n## B\n\nb\n\n### C\n## D\n\nd\n\n# E"))
    assert [(one.above, one.own) for one in found] == [
        ((), ()),
        ((), ("A", "B")),
        (("A",), ("A", "D")),
        ((), ("E",)),
    ]


@given(
    st.lists(
        st.sampled_from(
            ["# A", "## B", "text.", "", "```", "~~~", "- x", "|a|b|", "===", "---", "1.1 Abc", "ABCD", "  y"]
        )
    )
)
def test_blocks_hold_everything_in_order(rows: list[str]) -> None:
    """Whatever lines follow each other, blocks do not overlap, and between them is nothing but white space."""
    text = "\n".join(rows)
    place = 0
    for block in blocks(text):
        assert not text[place : block.start].strip()
        assert place <= block.start < block.end
        place = block.end
    assert not text[place:].strip()
    assert [block for one in sections(text) for block in one.blocks] == list(blocks(text))
