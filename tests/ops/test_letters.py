"""Finding and counting dead letters, on the broker in memory."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.payloads import Document, Letter
from pipeline.core.record import Outgoing, Partition, Position
from pipeline.ops.letter_counts import IN_VALUE, NONE, Counts
from pipeline.ops.letter_states import LEASE, LetterStates, read_entries, run_key
from pipeline.ops.letters import Found, Letters
from pipeline.ops.log_scan import Snapshot
from tests.ops.letter_world import GRAVE, JOB, NOW, LetterWorld, letter_world

DOCUMENT = Document(source="s", id="1", tenant="acme", title="t", body="b", version=1)


async def chosen(letters: Letters, **asked: object) -> list[str]:
    """Name the jobs of the letters that are meant."""
    wanted = LetterFilter(**asked)  # type: ignore[arg-type]  # names are checked by the filter
    async with aclosing(letters.select(wanted)) as batches:
        return sorted([one.head.job async for batch in batches for one in batch])


async def state(world: LetterWorld, place: Position, letter: str, entry: Letter | None) -> None:
    """Write an entry of the state topic, as somebody else would."""
    value = None if entry is None else await world.codec.encode("letters", entry)
    world.broker.append(Outgoing("p.letters", letter.encode(), value, (), place.partition % world.partitions))


# ------------------------------------------------------------------------------------------------ selecting
async def test_letters_of_all_stages_are_found() -> None:
    """All partitions of all dead-letter topics, up to where they end; what is written meanwhile is not in it."""
    async with letter_world() as world:
        for stage in ("infer", "preprocess", "infer", "index"):
            await world.bury(replace(GRAVE, stage=stage), payload=DOCUMENT if stage == "index" else None)
        letters, found = await world.letters(), list[Found]()
        async with aclosing(letters.select(LetterFilter())) as batches:
            async for batch in batches:
                await world.bury()
                found += batch
        assert ["index", "infer", "infer", "preprocess"] == sorted(one.head.stage for one in found)
        assert ("dead letters", 4, 4) == world.told[-1]


async def test_what_only_the_value_tells_is_asked_of_the_value() -> None:
    """Job, type and tenant of letters from outsiders; one that cannot be decoded matches no such filter."""
    async with letter_world() as world:
        outside = replace(GRAVE, stage="preprocess")
        await world.bury()
        await world.bury(outside, replace(JOB, tenant="umbrella"))
        await world.bury(outside)
        world.put("p.preprocess.dlq", (), b"junk")
        letters = await world.letters()
        assert 4 == len(await chosen(letters))
        assert 1 == len(await chosen(letters, tenants=("umbrella",)))
        assert 3 == len(await chosen(letters, types=("quick_answer",)))
        assert ["job-0"] == await chosen(letters, jobs=("job-0",))
        assert [] == await chosen(letters, types=("",), stages=("infer",))


async def test_states_are_what_the_topic_said_when_it_was_read() -> None:
    """The last entry of a letter counts, null opens it again, and other entries are of other things."""
    async with letter_world() as world:
        first, second, third = [await world.bury() for _ in range(3)]
        place = Position("p.infer.dlq", 0, 0)
        entry = Letter(state="assigned", topic=place.topic, at_ms=1, assignee="ann")
        await state(world, place, first, entry)
        await state(world, place, first, entry.model_copy(update={"assignee": "bob"}))
        await state(world, place, second, entry)
        await state(world, place, second, None)
        await state(world, place, run_key("job-9"), Letter(state="rerun", job="job-9", run=4, at_ms=1))
        await state(world, place, LEASE, Letter(state="replaying", operator="eve", at_ms=1))
        world.broker.append(Outgoing("p.letters", third.encode(), b"junk", (), 0))
        letters = await world.letters()
        assert (1, "assigned", "bob") == (len(letters.states), *letters.states.of_id(first)[:2])
        assert {"open"} == {letters.states.of_id(one).state for one in (second, third)}
        assert ({"job-9": 4}, "eve") == (letters.states.runs, letters.states.lease and letters.states.lease.operator)
        assert ["job-0"] == await chosen(letters, states=("assigned",))
        async with world.opens() as reader:
            kept = await read_entries(reader, world.broker, world.codec, "p.letters", [first, third])
        assert ["ann", "bob"] == [one.assignee for one in kept[first] if one]
        assert [] == kept[third]


def test_entries_that_fit_no_key_change_nothing() -> None:
    """A letter's state under a run's key, a run under a letter's, and keys that are no ids."""
    states = LetterStates()
    states.fold(LEASE, Letter(state="resolved", at_ms=1))
    states.fold(run_key("j"), Letter(state="resolved", at_ms=1))
    states.fold("no id", Letter(state="resolved", at_ms=1))
    states.fold("ab" * 16, Letter(state="rerun", at_ms=1))
    assert (None, {}, 0) == (states.lease, states.runs, len(states))
    states.fold(run_key("j"), Letter(state="rerun", run=3, at_ms=1))
    states.fold(run_key("j"), Letter(state="rerun", run=2, at_ms=1))
    assert {"j": 3} == states.runs
    states.fold(run_key("j"), None)
    states.fold("no id", None)
    assert {} == states.runs


async def test_states_of_a_share_are_read_alone() -> None:
    """Those of letters on partitions of its numbers: entries stand on the partition of their letter's number."""
    async with letter_world(2) as world:
        ids = [await world.bury() for _ in range(4)]
        for number, letter in enumerate(ids):
            place = Position("p.infer.dlq", number % 2, 0)
            await state(world, place, letter, Letter(state="resolved", topic=place.topic, at_ms=1))
        letters = await world.letters()
        (share, _) = (await letters.snapshot()).shares(2)
        await letters.refresh(share.numbers)
        assert 2 == len(letters.states)
        async with aclosing(letters.select(LetterFilter(), share)) as batches:
            assert ["resolved"] * 2 == [one.state.state async for batch in batches for one in batch]


async def test_without_a_state_topic_all_is_open() -> None:
    """Nor does a dead-letter topic that is missing stop anybody."""
    async with letter_world() as world:
        letter = await world.bury()
        await world.broker.delete_topics(["p.letters", "p.index.dlq"])
        letters = await world.letters()
        assert ("open", ["job-0"]) == (letters.states.of_id(letter).state, await chosen(letters, states=("open",)))


# ------------------------------------------------------------------------------------------------ counting
async def test_letters_are_counted_by_all_that_is_asked_first() -> None:
    """Stage, reason, fingerprint with an example, type, tenant, the schema's version, age and state."""
    async with letter_world() as world:
        await world.bury()
        await world.bury(replace(GRAVE, reason="KeyError: 'y'", failed_at=NOW - 90_000))
        await world.bury(replace(GRAVE, stage="preprocess", code="schema", failed_at=NOW - 10))
        await world.bury(replace(GRAVE, failed_at=NOW - 7e6), replace(JOB, tenant="umbrella"))
        world.put("p.preprocess.dlq", (), None)
        letters = await world.letters()
        listing = await letters.listing(LetterFilter(), 3)
        counts = listing.counts
        assert (5, 3, 2) == (counts.total, len(listing.newest), listing.opaque)
        assert {"infer": 3, "preprocess": 2} == counts.by("stage")
        assert {"unexpected": 3, "schema": 1, "unknown": 1} == counts.by("reason")
        assert {"acme": 3, IN_VALUE: 1, "umbrella": 1} == counts.by("tenant")
        assert {"quick_answer": 4, IN_VALUE: 1} == counts.by("type")
        assert {"contexts/v1": 3, "none": 1, "requests/v2": 1} == counts.by("version")
        assert {"under an hour": 3, "under a week": 1, "older": 1} == counts.by("age")
        assert ({"open": 5}, {"pipeline": 4, "unknown": 1}) == (counts.by("state"), counts.by("family"))
        same = next(iter(counts.by("fingerprint")))
        assert (3, ("infer", "unexpected", "KeyError: 'x'")) == (counts.by("fingerprint")[same], counts.examples[same])
        assert ["unknown", "schema", "unexpected"] == [head.code for head, _, _ in listing.newest]
        assert (int(NOW - 7e6) * 1000, int(NOW) * 1000) == (counts.oldest_ms, counts.newest_ms)


async def test_the_newest_are_shown_and_no_more() -> None:
    """By the time of their failure, wherever they stand; none where none are wanted."""
    async with letter_world() as world:
        for age in (50, 10, 40, 20, 30):
            await world.bury(replace(GRAVE, failed_at=NOW - age))
        letters = await world.letters()
        newest = (await letters.listing(LetterFilter(), 2)).newest
        assert [NOW - 10, NOW - 20] == [head.failed_at_ms / 1000 for head, _, _ in newest]
        assert [] == (await letters.listing(LetterFilter(), 0)).newest
        assert 0 == (await letters.listing(LetterFilter(stages=("index",)), 5)).counts.total


async def test_counting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name for each letter does not take memory for each: beyond some they are counted together."""
    monkeypatch.setattr("pipeline.ops.letter_counts.MOST_NAMES", 3)
    monkeypatch.setattr("pipeline.ops.letter_counts._MOST_GROUPS", 2)
    async with letter_world() as world:
        for number in range(7):
            await world.bury(job=replace(JOB, tenant=f"t{number}", type=""))
        counts = (await (await world.letters()).listing(LetterFilter(), 0)).counts
        assert [4, 1, 1, 1] == list(counts.by("tenant").values())
        assert 4 == counts.by("tenant")["(others)"]
        assert ({NONE: 7}, 7) == (counts.by("type"), counts.total)
    assert {} == Counts(0).by("age")


async def test_what_was_counted_apart_adds_up() -> None:
    """Shares of the letters, by partition: each letter is in one of them, and together they are all."""
    async with letter_world(3) as world:
        for number in range(7):
            await world.bury(replace(GRAVE, code=f"c{number % 2}", failed_at=NOW - number))
        letters = await world.letters()
        bounds = await letters.snapshot()
        shares = bounds.shares(2)
        assert (2, 7) == (len(shares), sum(one.total for one in shares))
        assert 3 == len(bounds.shares(9))
        assert [0] == [one.total for one in Snapshot({}, {}).shares(4)]
        assert {0, 1, 2} == shares[0].numbers | shares[1].numbers
        first, second = [await letters.listing(LetterFilter(), 3, one) for one in shares]
        whole = await letters.listing(LetterFilter(), 3)
        first.join(second, 3)
        assert whole.counts.by("reason") == first.counts.by("reason") == {"c0": 4, "c1": 3}
        assert [one[0] for one in whole.newest] == [one[0] for one in first.newest]
        assert (7, whole.counts.oldest_ms, whole.counts.newest_ms) == (
            first.counts.total,
            first.counts.oldest_ms,
            first.counts.newest_ms,
        )


# ------------------------------------------------------------------------------------------------ finding one
async def test_a_letter_is_found_by_its_id_and_by_its_place() -> None:
    """Each the same letter, with its state."""
    async with letter_world() as world:
        ids = [await world.bury() for _ in range(5)]
        letters = await world.letters()
        found = await letters.find(ids[3])
        assert ("job-3", Position("p.infer.dlq", 1, 1)) == (found.head.job, found.record.position)
        assert found == await letters.find("p.infer.dlq/1/1")
        assert found == await letters.at(found.record.position, ids[3])
        assert None is await letters.at(found.record.position, ids[2])


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("9b2f7c1e-5d0a-5c55-9d0c-0f6f6a1f6e51", "there is no dead letter 9b2f"),
        ("p.infer.dlq/0/7", "there is no dead letter at p.infer.dlq/0/7"),
        ("p.infer.dlq/9/0", "there is no dead letter at"),
        ("p.infer.dlq/0/0", "there is no dead letter at p.infer.dlq/0/0: it was purged"),
        ("p.requests/0/0", "p.requests is no dead-letter topic here: there are p.preprocess.dlq"),
        ("nonsense\x1b", "is no letter: give an id"),
    ],
)
async def test_a_letter_that_is_not_there_is_said(name: str, sentence: str) -> None:
    """Unknown, not written yet, deleted, of another topic, and no name of a letter at all."""
    async with letter_world() as world:
        for _ in range(4):
            await world.bury()
        world.broker.trim(Partition("p.infer.dlq", 0), 1)
        letters = await world.letters()
        with pytest.raises(ConfigurationError, match=sentence):
            await letters.find(name)
