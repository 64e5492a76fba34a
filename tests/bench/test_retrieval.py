"""The labelled set is what it says, and both parts together find at least what each finds alone."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.bench import retrieval
from tests.bench.retrieval import documents, measured, questions, told

pytestmark = pytest.mark.local


def test_the_labelled_set_is_complete() -> None:
    """Every answer is a document of the one who asks; questions of both kinds, and tenants, are many enough."""
    held, asked = documents(), questions()
    known = {(document.tenant, document.id) for document, _ in held}
    assert 60 <= len(held) == len(known)
    assert len({tenant for tenant, _ in known}) >= 3
    assert {(one.tenant, answer) for one in asked for answer in one.answers} <= known
    assert len(asked) == len({one.text for one in asked}) >= 40
    assert min(Counter(one.by for one in asked).values()) >= 20
    assert all(chunks for _, chunks in held)


async def test_both_parts_find_what_each_finds_alone() -> None:
    """Recall@5 of the fused search is at least that by words and that by meaning, and each part finds its own kind."""
    table = await measured()
    print(told(table))
    words, meaning, both = (table[name] for name in ("words", "meaning", "both"))
    assert both["all"] >= max(words["all"], meaning["all"])
    assert words["words"] == both["words"] == 1.0
    assert both["meaning"] > words["meaning"]


def test_the_table_has_a_line_for_each_way_of_finding() -> None:
    """With the recall over all questions, and over those of each kind."""
    lines = told({name: {"all": 0.5, "words": 1.0} for name in retrieval.PARTS}).splitlines()
    assert lines[0].split() == ["recall@5", "found", "by", "all", "asked", "by", "words"]
    assert [line.split() for line in lines[1:]] == [[name, "0.500", "1.000"] for name in retrieval.PARTS]
