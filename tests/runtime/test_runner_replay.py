"""What replays bring back: due now, changed as their headers say, and never because an outsider says so."""

from __future__ import annotations

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Reject, Retry
from pipeline.core.job import child_id
from pipeline.core.record import Record
from pipeline.devkit.clock import wall
from tests.runtime.world import OPEN, Note, Script, World, header


def brought_back(dead: Record, **told: str) -> dict[str, str]:
    """The headers of a replayed copy of a dead letter."""
    kept = {name: (value or b"").decode() for name, value in dead.headers if not name.startswith((h.DEAD, "x-"))}
    names = {"run": h.REPLAY_RUN, "patch": h.REPLAY_PATCH, "deadline": h.REPLAY_DEADLINE}
    fresh = {h.ATTEMPTS: "0", h.NOT_BEFORE: str(int(wall() * 1000)), h.REPLAY_ID: "r-1", h.REPLAY_LETTER: "l-1"}
    return kept | fresh | {names[name]: text for name, text in told.items()}


async def dead_letter(world: World, script: Script) -> Record:
    """Let a record die."""
    await world.start(script)
    world.put("a", headers={"ce_id": "e-1", "ce_subject": "job-1"})
    await world.until(world.dead)
    return world.dead()[0]


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_replay_is_due_now() -> None:
    """It leaves its tier at once; what failed beside it still waits for the tier's whole delay."""
    world = await World.make()
    script = Script(a=[Reject("our bug")], b=[Retry("not yet")])
    dead = await dead_letter(world, script)
    began = wall()
    world.write(dead.value, topic="t.work.retry.10s", headers=brought_back(dead))
    world.put("b", key=b"other")
    await world.until(lambda: len(world.texts()) == 2)
    await world.stop()
    assert script.times("a")[1] - began < 2
    assert script.times("b")[1] - began >= 10
    assert {call.event.id for call in script.calls if call.text == "a"} == {"e-1"}


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_patched_replay_is_another_run() -> None:
    """Its event, and so its answer, has a new id; a later copy of it is changed alike, and so is its dead letter's."""
    world = await World.make()
    script = Script(a=[Reject("our bug"), Retry("again"), Reject("still")])
    dead = await dead_letter(world, script)
    world.write(dead.value, topic="t.work.retry.10s", headers=brought_back(dead, run="1", patch='{"type":"deep"}'))
    await world.until(lambda: len(world.dead()) == 2)
    await world.stop()
    again = child_id("e-1", "run", 0, 1)
    assert [call.event.id for call in script.calls] == ["e-1", again, again]
    assert [(call.event.job.run, call.event.job.type, call.attempt) for call in script.calls[1:]] == [
        (1, "deep", 1),
        (1, "deep", 2),
    ]
    assert header(world.dead()[1], h.REPLAY_LETTER) == "l-1"
    assert [world.dead()[1].value, world.dead()[1].key] == [dead.value, dead.key]


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_patch_that_cannot_be_read_is_a_dead_letter() -> None:
    """Without it the work would be done as it failed before, and be paid for."""
    world = await World.make()
    script = Script(a=[Reject("our bug")])
    dead = await dead_letter(world, script)
    world.write(dead.value, topic="t.work.retry.10s", headers=brought_back(dead, patch='{"tenant":"x"}'))
    await world.until(lambda: len(world.dead()) == 2)
    await world.stop()
    assert len(script.calls) == 1
    assert header(world.dead()[1], "pipeline-dead-code") == "bad_patch"


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_an_outsider_cannot_patch() -> None:
    """On an open topic such headers are a forgery: they are not believed, and do not get into a copy."""
    world = await World.make()
    script = Script(a=[Retry("again")])
    await world.start(script, world.stage(OPEN))
    told = {h.REPLAY_RUN: "7", h.REPLAY_PATCH: '{"model":"dear"}', h.REPLAY_ID: "x", h.REPLAY_DEADLINE: "9"}
    world.write(Note(text="a"), topic="t.open", headers=told)
    await world.until(world.texts)
    await world.stop()
    assert [(call.event.job.run, call.event.job.overrides) for call in script.calls] == [(0, ""), (0, "")]
    (copy,) = world.records("t.work.retry.10s")
    assert not [name for name, _ in copy.headers if name.startswith(h.REPLAY)]
