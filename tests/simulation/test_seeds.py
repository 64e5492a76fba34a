"""A hundred and fifty seeds: crashes, zombies and lost words, and every promise kept."""

from __future__ import annotations

import pytest

from pipeline.devkit.crash.search import search
from pipeline.rehearsal import Rehearsal

pytestmark = pytest.mark.local

# So many find every mistake that test_broken.py makes on purpose; `make soak` plays ten thousand.
SEEDS, PART = 150, 15


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Whatever goes wrong: nothing is lost, every job ends once, and nothing is committed that is not settled."""
    found = search(Rehearsal(), range(first, first + PART))
    assert found.seeds == PART
    assert found.as_json()["findings"] == []
