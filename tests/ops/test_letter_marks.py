"""What people do about dead letters, on the broker in memory: planned, done, audited; and what a purge deletes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.letter_state import LetterState
from pipeline.core.payloads import Audit, Letter
from pipeline.core.ports import Delivered
from pipeline.core.record import Outgoing, Partition
from pipeline.ops.letter_marks import MOST_IDS, REMEMBERED_DAYS, Choice, MarkPlan, Wish, mark, plan_marks, purge_logs
from pipeline.ops.letter_states import LEASE
from pipeline.ops.letters import Letters
from pipeline.ops.publish import write_all
from tests.ops.letter_world import GRAVE, NOW, LetterWorld, letter_world

RESOLVE = Wish("resolve", "ann", "not needed any more")


async def do(world: LetterWorld, choice: Choice, wish: Wish) -> tuple[int, MarkPlan]:
    """Plan a wish and do it; returns how many letters it was done to, and the plan."""
    letters = await world.letters()
    plan = await plan_marks(letters, choice, wish)
    return await mark(letters, choice, wish, plan, "a test"), plan


async def states(world: LetterWorld, *ids: str) -> list[str]:
    """Tell the states of letters as the topic has them now."""
    known = (await world.letters()).states
    return [known.of_id(one).state for one in ids]


async def audits(world: LetterWorld) -> list[Audit]:
    """Decode what the audit topic has."""
    return [await world.codec.decode("audit", Audit, one.value) for one in world.broker.records("p.audit") if one.value]


async def named(world: LetterWorld, *ids: str) -> Choice:
    """Choose letters by id."""
    return Choice(named=await (await world.letters()).find_all(ids))


# ------------------------------------------------------------------------------------------------ marks
async def test_letters_are_resolved_and_that_is_audited() -> None:
    """By a filter: an entry for each on the partition of its number, and one audit record with who, why and which."""
    async with letter_world() as world:
        ids = [await world.bury(replace(GRAVE, code=code)) for code in ("a", "b", "a")]
        done, plan = await do(world, Choice(LetterFilter(reasons=("a",))), RESOLVE)
        assert (2, 2, {}) == (done, plan.letters, dict(plan.refused))
        assert ["resolved", "open", "resolved"] == await states(world, *ids)
        entries = {one.key: one for one in world.broker.records("p.letters")}
        assert {ids[0].encode(): 0, ids[2].encode(): 0} == {key: one.partition for key, one in entries.items()}
        entry = await world.codec.decode("letters", Letter, entries[ids[2].encode()].value or b"")
        assert ("resolved", "ann", "not needed any more", "job-2") == (
            entry.state,
            entry.operator,
            entry.reason,
            entry.job,
        )
        assert ("p.infer.dlq", 0, 1, int(NOW * 1000)) == (entry.topic, entry.partition, entry.offset, entry.at_ms)
        (told,) = await audits(world)
        assert ("letter.resolved", "", "ann") == (told.action, told.subject, told.operator)
        assert {"letters": "2", "scope": "a test", "ids": f"{ids[0]} {ids[2]}"} == told.details


async def test_letters_are_assigned_reopened_and_done_with_by_name() -> None:
    """By ids; the audit's subject is the letter where it is one alone."""
    async with letter_world() as world:
        first, second = await world.bury(), await world.bury()
        await do(world, await named(world, first, second), Wish("assign", "ann", "", "bob"))
        known = (await world.letters()).states
        assert LetterState("assigned", "bob") == known.of_id(first) == known.of_id(second)
        await do(world, await named(world, first), Wish("reopen", "bob"))
        assert ["open", "assigned"] == await states(world, first, second)
        told = await audits(world)
        assert [("letter.assigned", "", "bob"), ("letter.reopened", first, None)] == [
            (one.action, one.subject, one.details.get("assignee")) for one in told
        ]


async def test_what_is_refused_is_counted_and_left_alone() -> None:
    """By reason; where nothing is left to be done, nothing is written."""
    async with letter_world() as world:
        first, second = await world.bury(), await world.bury()
        await do(world, await named(world, first), RESOLVE)
        done, plan = await do(world, Choice(), RESOLVE)
        assert (1, {"it is resolved already": 1}) == (done, dict(plan.refused))
        done, plan = await do(world, await named(world, first), Wish("assign", "ann", "", "bob"))
        assert (0, {"it is resolved: reopen it first": 1}) == (done, dict(plan.refused))
        assert (2, ["resolved", "resolved"]) == (len(await audits(world)), await states(world, first, second))


async def test_a_limit_is_of_letters_that_it_is_done_to() -> None:
    """What is refused takes no place of it."""
    async with letter_world(1) as world:
        ids = [await world.bury() for _ in range(5)]
        await do(world, await named(world, ids[0]), RESOLVE)
        done, _ = await do(world, Choice(limit=2), RESOLVE)
        assert (2, ["resolved"] * 3 + ["open"] * 2) == (done, await states(world, *ids))
        assert (0, 0) == ((await do(world, Choice(limit=0), RESOLVE))[0], len(world.readers))


async def test_what_is_written_meanwhile_is_not_meant() -> None:
    """It is done to the letters that were counted, and a person has seen the number of."""
    async with letter_world() as world:
        await world.bury()
        letters = await world.letters()
        plan = await plan_marks(letters, Choice(), RESOLVE)
        later = await world.bury()
        assert (1, 1) == (await mark(letters, Choice(), RESOLVE, plan, ""), plan.letters)
        assert ["open"] == await states(world, later)


async def test_of_many_letters_some_are_named() -> None:
    """The audit record stays small."""
    async with letter_world() as world:
        for _ in range(MOST_IDS + 5):
            await world.bury()
        await do(world, Choice(), RESOLVE)
        (told,) = await audits(world)
        assert (str(MOST_IDS + 5), MOST_IDS) == (told.details["letters"], len(told.details["ids"].split()))


async def test_a_replays_count_is_kept() -> None:
    """Whoever works on a letter does not make it forget how often it was brought back."""
    async with letter_world() as world:
        letter = await world.bury()
        found = (await (await world.letters()).find(letter)).record
        entry = Letter(state="replayed", topic=found.topic, replay="r1", replays=2, at_ms=1)
        value = await world.codec.encode("letters", entry)
        world.broker.append(Outgoing("p.letters", letter.encode(), value, (), found.partition))
        await do(world, Choice(), RESOLVE)
        assert LetterState("resolved", "", "r1", 2) == (await world.letters()).states.of_id(letter)


async def test_nothing_is_said_before_all_is_acknowledged() -> None:
    """A refusal of the broker's is raised, and only when the others have been answered too."""

    class Refusing:
        def __init__(self) -> None:
            self.waiting: list[Delivered] = []

        def send(self, record: Outgoing, delivered: Delivered) -> None:
            self.waiting.append(delivered)

        async def flush(self, timeout: float) -> int:
            return 0

    producer = Refusing()
    task = asyncio.create_task(write_all(producer, [Outgoing("t", None, b"")] * 3))
    await asyncio.sleep(0)
    producer.waiting[0](None)
    producer.waiting[1](RuntimeError("too large"))
    await asyncio.sleep(0)
    assert not task.done()
    producer.waiting[2](None)
    with pytest.raises(RuntimeError, match="too large"):
        await task
    assert 0 == await write_all(producer, [])


# ------------------------------------------------------------------------------------------------ purges
PURGE = Wish("purge", "ann", "of no use")


async def purged(world: LetterWorld, choice: Choice) -> tuple[int, int]:
    """Purge letters; returns how many were deleted and how many wait."""
    letters: Letters = await world.letters()
    plan = await plan_marks(letters, choice, PURGE)
    await mark(letters, choice, PURGE, plan, "a test")
    found = await purge_logs(letters, plan)
    return found.deleted, found.waiting


async def test_what_is_purged_is_deleted_up_to_the_first_that_is_not() -> None:
    """Kafka deletes from the beginning of a log: the rest waits for those before it, and goes when they do."""
    async with letter_world() as world:
        ids = [await world.bury() for _ in range(8)]  # partition 0 has the even ones
        assert (1, 1) == await purged(world, await named(world, ids[0], ids[4]))
        assert (1, 4) == world.broker.range(Partition("p.infer.dlq", 0))
        assert (0, 4) == world.broker.range(Partition("p.infer.dlq", 1))
        assert ["purged", "open", "purged"] == await states(world, ids[0], ids[2], ids[4])
        assert (2, 0) == await purged(world, await named(world, ids[2]))
        assert (3, 4) == world.broker.range(Partition("p.infer.dlq", 0))


async def test_of_letters_that_are_long_gone_nothing_is_kept() -> None:
    """Else the topic would grow for ever; what is younger, or of a letter that is there, or of no letter, stays."""
    async with letter_world(1) as world:
        ids = [await world.bury() for _ in range(3)]
        await purged(world, await named(world, ids[0]))
        await do(world, await named(world, ids[1]), RESOLVE)
        entry = await world.codec.encode("letters", Letter(state="rerun", job="j", run=2, at_ms=1))
        world.broker.append(Outgoing("p.letters", b"run/j", entry, (), 0))
        world.broker.append(Outgoing("p.letters", b"junk", b"junk", (), 0))
        await purged(world, Choice(LetterFilter(stages=("index",))))
        assert ["purged", "resolved"] == await states(world, *ids[:2])
        world.now += REMEMBERED_DAYS * 86_400 + 1
        letters = await world.letters()
        found = await purge_logs(letters, await plan_marks(letters, Choice(LetterFilter(stages=("index",))), PURGE))
        assert (1, ["open", "resolved"]) == (found.forgotten, await states(world, *ids[:2]))
        assert {"j": 2} == (await world.letters()).states.runs


async def test_nothing_is_purged_under_a_replay() -> None:
    """It may be at those letters; one that has given no sign of life for a while stops nobody."""
    async with letter_world() as world:
        letter = await world.bury()
        lease = Letter(state="replaying", operator="eve", replay="r7", at_ms=1)
        world.broker.append(Outgoing("p.letters", LEASE.encode(), await world.codec.encode("letters", lease), (), 0))
        with pytest.raises(ConfigurationError, match="the replay r7 of eve is under way"):
            await purged(world, Choice())
        assert ["open"] == await states(world, letter)
        world.now += 31
        assert (1, 0) == await purged(world, Choice())


async def test_all_can_be_purged() -> None:
    """Then the logs are empty, and what is written afterwards is as any letter."""
    async with letter_world() as world:
        for _ in range(3):
            await world.bury()
        assert (3, 0) == await purged(world, Choice())
        assert [] == list(world.broker.records("p.infer.dlq"))
        later = await world.bury()
        assert ["open"] == await states(world, later)
        assert (0, 0) == await purged(world, Choice(LetterFilter(stages=("index",))))
        assert 1 == len(world.broker.records("p.infer.dlq"))
