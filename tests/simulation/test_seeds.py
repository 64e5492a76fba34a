"""Three hundred seeds: crashes, zombies and lost words, and every promise kept."""

from __future__ import annotations

import pytest

from pipeline.devkit.crash.search import search
from pipeline.rehearsal import Rehearsal

pytestmark = pytest.mark.local

SEEDS, PART = 300, 25


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Whatever goes wrong: nothing is lost, every job ends once, and nothing is committed that is not settled."""
    found = search(Rehearsal(), range(first, first + PART))
    assert found.seeds == PART
    assert found.as_json()["findings"] == []
