"""Intake: what is booked, and for whom."""

from __future__ import annotations

import pytest

from pipeline.core.record import Partition, Record
from tests.runtime.world import Script, World


@pytest.mark.virtual
async def test_a_record_of_a_partition_that_has_gone_is_not_booked() -> None:
    """A client may hand over what it had fetched before a revocation: it is somebody else's, so it is passed over."""
    world = await World.make(partitions=2)
    run = await world.start(Script())
    await world.settle()
    run.consumer.strays = [Record("t.in", 7, 0, b"k", b"stray"), Record("t.elsewhere", 0, 0, b"k", b"stray")]
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert run.handler.texts == ["a"]
    assert run.consumer.strays == []
    assert all(Partition("t.in", 7) not in offsets for _, offsets in run.consumer.commits)
