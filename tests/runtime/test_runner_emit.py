"""What a try tells beside its outcome: written with whatever end it leads to, and a second output topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Fail, Reject, Retry
from pipeline.core.event import Event
from pipeline.core.payloads import JobPayload
from pipeline.core.ports import RecordTooLarge
from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Context, Topic
from pipeline.devkit.clock import wall
from tests.runtime.world import Note, Script, World, header


class Said(JobPayload):
    """What is told of a try."""

    text: str


SAID = Topic("end", Said)


class Telling(Script):
    """Tells of each try before it ends as the script says."""

    async def __call__(self, event: Event[Any], ctx: Context, /) -> Sequence[Any]:
        ctx.emit(Said(text=f"{event.payload.text} try {ctx.attempt}"))
        return await super().__call__(event, ctx)


def told(world: World) -> list[str]:
    """What was told of tries."""
    return [text.removesuffix("!") for text in world.texts("t.end")]


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("end", [None, Fail("no"), Reject("our bug")])
async def test_each_try_is_told_of_whatever_it_comes_to(end: Exception | None) -> None:
    """An output, a failure event and a dead letter are written beside it; a retry as well."""
    world = await World.make()
    script = Telling(a=[Retry("again"), end])
    await world.start(script, world.stage(also=SAID))
    world.put("a")
    await world.until(lambda: world.at() == 1 and len(world.texts("t.end")) == 2)
    await world.until(lambda: world.texts() or world.failures())
    await world.stop()
    assert told(world) == ["a try 1", "a try 2"]
    assert [header(record, h.OUTPUT) for record in world.records("t.end")] == ["0/1", "0/1"]
    assert [header(record, h.TRY) for record in world.records("t.end")] == ["1", "2"]
    first, second = (header(record, h.CE_ID) for record in world.records("t.end"))
    assert first != second


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_what_deferred_tries_tell_are_events_of_their_own() -> None:
    """A deferral costs no attempt, so the number of the attempt alone would give all of them one id."""
    world = await World.make()
    script = Telling(a=[Defer("later", until=wall() + 5), Retry("again"), Defer("later", until=wall() + 100)])
    await world.start(script, world.stage(also=SAID))
    world.put("a")
    await world.until(lambda: len(world.texts("t.end")) == 4)
    await world.stop()
    assert told(world) == ["a try 1", "a try 1", "a try 2", "a try 2"]
    assert len({header(record, h.CE_ID) for record in world.records("t.end")}) == 4


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_record_is_not_settled_before_its_try_is_told_of() -> None:
    """Refused by the broker, the record comes to another end; nothing is dropped."""
    world = await World.make()
    run = await world.start(Telling(), world.stage(also=SAID))
    run.producer.refuse = lambda record: RecordTooLarge("too much") if record.topic == "t.end" else None
    world.put("a")
    await world.until(world.dead)
    await world.stop()
    assert (world.at(), len(world.dead())) == (1, 1)


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_what_waits_in_place_is_told_of_at_once() -> None:
    """Whoever looks at a record that waits for hours finds its tries so far."""
    world = await World.make()
    script = Telling(a=[Retry("again"), Retry("again")])
    await world.start(script, world.stage(also=SAID, retry=RetryPolicy((100.0, 100.0), in_place=True)))
    world.put("a")
    await world.until(lambda: len(script.calls) == 2)
    await world.settle(5)
    assert (told(world), world.at()) == (["a try 1", "a try 2"], None)
    await world.until(world.texts)
    await world.stop()
    assert told(world) == ["a try 1", "a try 2", "a try 3"]


@pytest.mark.virtual
async def test_the_type_of_an_output_picks_its_topic() -> None:
    """A stage with two output topics writes each payload to its own; one that fits neither is our bug."""
    world = await World.make()
    stage = world.stage(output=SAID, also=Topic("out", Note))
    script = Script(a=[[Said(text="to the first"), Note(text="to the second")]])
    await world.start(script, stage)
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert (world.texts("t.end"), world.texts("t.out")) == (["to the first"], ["to the second"])
