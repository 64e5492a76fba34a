"""Tests of pipeline/stages/citations.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.payloads import Citation
from pipeline.stages.citations import cited_numbers, resolve
from tests.stages.made import passage


@pytest.mark.parametrize(
    "text,numbers",
    [
        ("At nine [1].", (1,)),
        ("At nine [2], at ten [1][2].", (2, 1)),
        ("Both [1, 2] and [3 ,4].", (1, 2, 3, 4)),
        ("In [2024] or [12345] or [x] or [ ] or [1-3] or (1).", ()),
        ("[0] [007]", (0, 7)),
        ("[\u0661] [\u00b2]", ()),
        ("[[1]]", (1,)),
        ("", ()),
    ],
)
def test_numbers_in_brackets_are_citations(text: str, numbers: tuple[int, ...]) -> None:
    """Single numbers and lists, each once, in order; years, other digits and other brackets are text."""
    assert cited_numbers(text) == numbers


def test_a_number_names_its_passage() -> None:
    """A citation tells document, chunk, version and title."""
    found = [passage(), passage("Two.", document="d2", chunk=4, version=9, title="Two")]
    assert resolve([2], found) == (
        Citation(number=2, source="handbook", document="d2", chunk=4, version=9, title="Two"),
    )


def test_unknown_numbers_are_dropped() -> None:
    """A number without a passage says nothing about a source."""
    assert [citation.number for citation in resolve([0, 3, 1, -1, 1], [passage(), passage()])] == [1]


@given(st.text("[],0123456789 x", max_size=60), st.integers(0, 5))
def test_citations_always_point_at_passages(text: str, count: int) -> None:
    """Whatever an answer holds, each citation is one of the passages that were given, and none comes twice."""
    found = [passage(chunk=number) for number in range(count)]
    citations = resolve(cited_numbers(text), found)
    assert len({citation.number for citation in citations}) == len(citations)
    assert all(citation.chunk == citation.number - 1 for citation in citations)


@given(st.lists(st.integers(0, 999), max_size=8))
def test_what_is_cited_is_read_back(numbers: list[int]) -> None:
    """Writing numbers in brackets and reading them are each other's opposite."""
    text = " and ".join(f"so [{number}]" for number in numbers)
    assert cited_numbers(text) == tuple(dict.fromkeys(numbers))
