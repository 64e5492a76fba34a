"""The garbage collector while a worker runs."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from pipeline.runtime.collector import YOUNG, unhurried


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the collector as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize("before, inside", [(700, YOUNG), (2 * YOUNG, 2 * YOUNG), (0, 0)])
async def test_the_collector_looks_more_rarely_inside_the_block_only(before: int, inside: int) -> None:
    """It is set back after the block; one that is set to look more rarely, or never, is left alone."""
    gc.set_threshold(before)
    with unhurried():
        found = gc.get_threshold()[0]
    assert (found, gc.get_threshold()[0]) == (inside, before)


class Cycle:
    """Something that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.virtual
async def test_young_cycles_are_freed_by_the_clock() -> None:
    """What a failure leaves behind does not wait for fifty thousand objects, but for a second or two."""
    gc.set_threshold(700)
    with unhurried():
        left = weakref.ref(Cycle())
        before = left() is not None
        await asyncio.sleep(2)
        assert (before, left()) == (True, None)
