"""Tests of pipeline/core/passages.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.index_ports import Chunk
from pipeline.core.limits import estimate_tokens
from pipeline.core.passages import MIN_OVERLAP, Origin, body_of, diverse, fitting, joined, near, origin_of, widened
from pipeline.core.payloads import Passage

SHOP: Origin = ("handbook", "shop", 3)
TEXTS = {SHOP: {number: Chunk(number, f"<{number}>") for number in range(10)}}


def passage(chunk: int, text: str | None = None, **fields: Any) -> Passage:
    """Make a passage of the shop's document; the higher its number, the worse."""
    given: dict[str, Any] = {"source": "handbook", "document": "shop", "version": 3, "score": 1 / (chunk + 1)}
    return Passage(**(given | {"chunk": chunk, "title": "Hours", "text": text or f"<{chunk}>"} | fields))


def rows(found: Sequence[Passage]) -> list[tuple[int, str]]:
    """Chunk number and text, without the joints."""
    return [(one.chunk, one.text.replace("\n\n", "")) for one in found]


# ---- which are kept --------------------------------------------------------------------------------------------------
def test_no_document_has_more_than_its_share() -> None:
    """The best passages of each document are kept, in their order, and no more than the limit."""
    found = [passage(0), passage(1), passage(2), passage(0, document="post"), passage(3), passage(0, source="forum")]
    assert diverse(found, 3, 1) == (found[0], found[3], found[5])
    assert diverse(found, 3, 2) == (found[0], found[1], found[3])
    assert diverse(found, 4, None) == tuple(found[:4])


def test_what_does_not_fit_is_left_out_whole() -> None:
    """A passage over the rest of the budget is skipped; a smaller one after it may still fit."""
    large, small, tiny = passage(0, "l" * 300), passage(1, "s" * 150), passage(2, "t" * 90)
    assert fitting([small, large, tiny], 5, 80) == (small, tiny)


@given(st.lists(st.text(max_size=200)), st.integers(0, 5), st.integers(1, 100))
def test_the_budget_always_holds(texts: list[str], count: int, tokens: int) -> None:
    """Whatever was found: no more than the count and the tokens allow, in the order in which it was found."""
    kept = fitting([passage(number, text) for number, text in enumerate(texts)], count, tokens)
    assert len(kept) <= count
    assert sum(estimate_tokens(one.text) for one in kept) <= tokens
    assert [one.chunk for one in kept] == sorted(one.chunk for one in kept)


# ---- what comes along ------------------------------------------------------------------------------------------------
def test_the_neighbours_of_all_passages_are_named_at_once() -> None:
    """By document and version, so that one request can ask for all; there is no chunk before the first."""
    found = [passage(0), passage(4), passage(2, version=4)]
    assert near(found, 2) == {SHOP: {0, 1, 2, 3, 4, 5, 6}, ("handbook", "shop", 4): {0, 1, 2, 3, 4}}


def test_a_passage_stays_what_it_is() -> None:
    """Only its text grows: number, score, version and title are those of what was found."""
    (wide,) = widened([passage(4)], TEXTS, 2)
    assert wide == passage(4, "<2>\n\n<3>\n\n<4>\n\n<5>\n\n<6>")


def test_neighbours_that_were_both_found_become_one() -> None:
    """The better one leads, and no chunk comes twice."""
    assert rows(widened([passage(4), passage(5)], TEXTS, 1)) == [(4, "<3><4><5><6>")]
    assert rows(widened([passage(7), passage(1), passage(4)], TEXTS, 1)) == [(7, "<0><1><2><3><4><5><6><7><8>")]
    assert rows(widened([passage(7), passage(1)], TEXTS, 1)) == [(7, "<6><7><8>"), (1, "<0><1><2>")]


def test_without_neighbours_nothing_changes() -> None:
    """Also where two passages follow each other."""
    assert widened([passage(4), passage(5)], TEXTS, 0) == (passage(4), passage(5))


def test_another_version_or_document_is_no_neighbour() -> None:
    """A chunk of another origin never gets into a text."""
    strange = Chunk(5, "another")
    other = {
        ("handbook", "shop", 4): {5: strange},
        ("handbook", "post", 3): {5: strange},
        ("forum", "shop", 3): {5: strange},
    }
    assert rows(widened([passage(4)], other, 1)) == [(4, "<4>")]


def test_a_gap_ends_a_row() -> None:
    """A chunk is not joined over one that is missing."""
    assert rows(widened([passage(4)], {SHOP: {2: Chunk(2, "<2>"), 5: Chunk(5, "<5>")}}, 3)) == [(4, "<4><5>")]


def test_the_nearest_of_the_best_come_first() -> None:
    """Where the tokens do not suffice for all, each passage gets its next neighbours before any gets more."""
    found = [passage(7), passage(2)]
    assert rows(widened(found, TEXTS, 2, tokens=4)) == [(7, "<7>"), (2, "<2>")]
    assert rows(widened(found, TEXTS, 2, tokens=8)) == [(7, "<6><7><8>"), (2, "<2>")]
    assert rows(widened(found, TEXTS, 2, tokens=10)) == [(7, "<6><7><8>"), (2, "<1><2>")]
    assert rows(widened(found, TEXTS, 2, tokens=12)) == [(7, "<6><7><8>"), (2, "<1><2><3>")]


def test_passages_that_need_all_room_stay_as_they_are() -> None:
    """What was found is never given up for its surroundings, and is not joined to more than the tokens allow."""
    assert widened([passage(4), passage(5)], TEXTS, 1, tokens=2) == (passage(4), passage(5))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), unique=True, max_size=6),
    st.integers(0, 4),
    st.none() | st.integers(0, 60),
)
def test_no_chunk_comes_twice_and_none_is_lost(found: list[tuple[str, int]], neighbours: int, room: int | None) -> None:
    """Whatever was found: every hit is in exactly one passage, nothing far away is, and the tokens hold."""
    hits = [passage(chunk, document=name, score=-place) for place, (name, chunk) in enumerate(found)]
    texts = {("handbook", name, 3): {n: Chunk(n, f"<{n}>") for n in range(13)} for name in "ab"}
    wide = widened(hits, texts, neighbours, room)
    parts = [(one.document, int(part.strip("<>"))) for one in wide for part in one.text.split("\n\n")]
    assert len(parts) == len(set(parts))
    assert set(found) <= set(parts)
    assert all(any(name == hit and abs(chunk - n) <= neighbours for hit, chunk in found) for name, n in parts)
    assert [one.score for one in wide] == sorted((one.score for one in wide), reverse=True)
    needed = sum(estimate_tokens(one.text) for one in hits)
    if room is not None and needed <= room:
        assert sum(estimate_tokens(one.text) for one in wide) <= room
    assert {(one.document, one.chunk) for one in wide} <= set(found)
    assert all(origin_of(one) in texts for one in wide)


# ---- joining ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "texts,whole",
    [
        ([], ""),
        (["one"], "one"),
        (["One stands. Two overlaps here.", "Two overlaps here. Three."], "One stands. Two overlaps here. Three."),
        (["Two overlaps here.", "Two overlaps here."], "Two overlaps here."),
        (["It is short. Yes.", "Yes. It is."], "It is short. Yes.\n\nYes. It is."),
        (["pre-unbelievable things happen", "believable things happen here"], None),
        (["some unbelievable things", "unbelievable thingsness"], None),
        (["ababababababababab", "abababababababababx y"], None),
    ],
)
def test_what_overlaps_comes_once(texts: list[str], whole: str | None) -> None:
    """Only what both chunks have whole, from word to word, and long enough to be no chance."""
    chunks = [Chunk(number, text) for number, text in enumerate(texts)]
    assert joined(chunks) == ("\n\n".join(texts) if whole is None else whole)


@given(st.lists(st.integers(0, 10**16), min_size=2, max_size=8), st.integers(1, 3))
def test_cut_with_an_overlap_and_joined_a_text_is_whole_again(numbers: list[int], overlap: int) -> None:
    """Chunks that share sentences give the text that they were cut from."""
    sentences = [f"Sentence {place} says {number}." for place, number in enumerate(numbers)]
    assert all(len(one) >= MIN_OVERLAP for one in sentences)
    texts = [" ".join(sentences[max(0, n - overlap) : n + 1]) for n in range(len(sentences))]
    assert joined([Chunk(number, text) for number, text in enumerate(texts)]) == " ".join(sentences)


def test_what_a_chunk_says_that_it_repeats_comes_once() -> None:
    """Headings and short sentences too; the first chunk keeps its own, and the rest goes on from the last one."""
    chunks = [Chunk(4, "Hours\n\nMon: 9.", 5), Chunk(5, "Hours\n\nMon: 9. Tue: 8.", 14), Chunk(6, "Prices\n\n1.50", 0)]
    assert joined(chunks) == "Hours\n\nMon: 9. Tue: 8.\n\nPrices\n\n1.50"


def test_a_chunk_that_was_cut_anew_meanwhile_stays_as_it_was_found() -> None:
    """What was found and scored is what is told, though the index has another text by now."""
    texts = {SHOP: {4: Chunk(4, "cut anew", 3), 5: Chunk(5, "<5>")}}
    assert rows(widened([passage(4)], texts, 1)) == [(4, "<4><5>")]


def test_a_body_whose_gaps_are_not_told_is_joined() -> None:
    """As well as can be seen: what chunks repeat comes once, and an empty line is between those that repeat nothing."""
    assert body_of([Chunk(0, "One."), Chunk(1, "Two.")]) == "One.\n\nTwo."
    assert body_of([Chunk(0, "One.", gap=""), Chunk(1, "One. Two.", 4, gap=" ")]) == "One. Two."
