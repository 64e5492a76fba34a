"""Where partitions end: one question for all who ask meanwhile, and an answer that is never older than the asking."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from pipeline.broker.memory import MemoryBroker
from pipeline.core.record import Partition
from pipeline.devkit.clock import wall
from pipeline.runtime.ends import Ends
from tests.runtime.following import Reader

A, B, C = (Partition(name, 0) for name in "abc")


class Slow(Reader):
    """A reader whose questions take half a second, and whose log ends at the number of the question."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker(wall))
        self.asked: list[set[Partition]] = []

    async def ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        self.asked.append(set(partitions))
        number = len(self.asked)
        await asyncio.sleep(0.5)
        return dict.fromkeys(partitions, number)


@pytest.mark.virtual
async def test_questions_are_asked_together() -> None:
    """Whoever asks while a question is under way is answered by the next one, together with all others, and of its own
    partitions only."""
    reader = Slow()
    kept: set[asyncio.Task[Any]] = set()
    ends = Ends(reader, kept.add)
    first = asyncio.ensure_future(ends.of([A]))
    await asyncio.sleep(0.1)
    others = [asyncio.ensure_future(ends.of(names)) for names in ([A, B], [C], [C])]
    assert await asyncio.gather(first, *others) == [{A: 1}, {A: 2, B: 2}, {C: 2}, {C: 2}]
    assert reader.asked == [{A}, {A, B, C}]
    assert await ends.of([B]) == {B: 3}


@pytest.mark.virtual
async def test_what_cannot_be_answered_is_told_to_all() -> None:
    """A reader that may not read a topic ends them all; the next question is a new one."""
    reader = Slow()
    kept: set[asyncio.Task[Any]] = set()
    ends = Ends(reader, kept.add)

    async def refuse(partitions: Collection[Partition]) -> Mapping[Partition, int]:
        raise PermissionError(str(len(partitions)))

    good, reader.ends = reader.ends, refuse  # type: ignore[method-assign]  # a fault
    told = await asyncio.gather(ends.of([A]), ends.of([B]), return_exceptions=True)
    assert [repr(one) for one in told] == ["PermissionError('2')"] * 2
    reader.ends = good  # type: ignore[method-assign]  # it is mended
    assert await ends.of([B]) == {B: 1}
