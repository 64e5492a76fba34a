"""Writes that are refused, and events that cannot be encoded: another end is found, or the stage stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Fail, Halt, Reject, Retry
from pipeline.core.ports import RecordTooLarge
from pipeline.core.record import Outgoing, Partition, Record
from pipeline.devkit.clock import EPOCH, wall
from pipeline.runtime.settle import refusal
from pipeline.runtime.window import limits_for
from pipeline.runtime.work import Feed, Item, Part
from tests.runtime.world import FAILURES, IN, OPEN, Note, Script, World, header

HUGE = [Note(text="x" * 1_100_000)]


def too_large(*topics: str) -> Callable[[Outgoing], Exception | None]:
    """Refuse records for `topics` by their size."""
    return lambda record: RecordTooLarge(f"{record.topic}: too large") if record.topic in topics else None


@pytest.mark.parametrize("end, refused", [("output", True), ("failure", True), ("retry", True), ("dead_letter", False)])
def test_a_record_too_large_has_another_end_until_it_is_a_dead_letter(end: str, refused: bool) -> None:
    """What is too large for its topic becomes a dead letter; a dead letter that is too large has no other end."""
    item = Item(Record("t.in", 0, 0, None, b""), Part(Partition("t.in", 0), Feed("t.in", 1, limits_for(1)), None))
    item.end = end
    error = RecordTooLarge("1,100,000 bytes")
    verdict = refusal(item, error)
    assert isinstance(verdict, Reject) == refused
    assert (verdict is error) != refused
    assert end in str(verdict) or not refused


def test_any_other_refusal_stays_what_it_is() -> None:
    """A topic that does not exist is nobody's record's fault."""
    item = Item(Record("t.in", 0, 0, None, b""), Part(Partition("t.in", 0), Feed("t.in", 1, limits_for(1)), None))
    error = LookupError("no such topic")
    assert refusal(item, error) is error


# ---------------------------------------------------------------- too large


@pytest.mark.virtual
async def test_an_output_over_its_topics_limit_is_a_dead_letter() -> None:
    """The source goes to the dead letters with the reason, its owner is told by name, and the rest flows on."""
    world = await World.make()
    run = await world.start(Script(a=[HUGE]), world.stage(OPEN))
    request = Note(text="a", endpoint="crm", metadata={"case": "7"})
    source = world.write(request, b"k", topic="t.open", headers={h.CE_ID: "mine"})
    world.put("b", topic="t.open")
    await world.until(lambda: world.at("t.open") == 2)
    await world.stop()
    (letter,) = world.dead()
    assert letter.value == source.value
    assert "(output) is larger than its topic takes" in (header(letter, f"{h.DEAD}reason") or "")
    (failure,) = world.failures()
    assert (failure.endpoint, failure.metadata, failure.recoverable) == ("crm", {"case": "7"}, True)
    assert header(world.records("t.failures")[0], h.CE_SUBJECT) == run.handler.calls[0].event.job.id
    assert world.texts() == ["b!"]


@pytest.mark.virtual
async def test_one_output_too_large_spoils_its_record_not_the_stage() -> None:
    """Of two outputs one is refused: the record is a dead letter, once, after both answers have come."""
    world = await World.make()
    await world.start(Script(a=[[Note(text="fits"), *HUGE, Note(text="fits too")]]))
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert len(world.dead()) == 1
    assert len(world.failures()) == 1


@pytest.mark.virtual
async def test_a_retry_copy_too_large_is_a_dead_letter() -> None:
    """A tier with a smaller limit than its source does not stop the stage."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("later")]))
    run.producer.refuse = too_large("t.work.retry.10s")
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert "(retry)" in (header(world.dead()[0], f"{h.DEAD}reason") or "")


@pytest.mark.virtual
async def test_a_failure_event_too_large_leaves_a_dead_letter() -> None:
    """A sender's key may make the failure event too large for its topic: a person gets the record instead.

    One such request must not halt the stage, or anybody could.
    """
    world = await World.make()
    await world.start(Script(a=[Fail("refused")]))
    world.put("a", key=b"k" * 1_048_300)
    world.put("b", key=b"b")
    with capture_logs() as logs:
        await world.until(lambda: world.at() == 2)
    await world.stop()
    assert len(world.dead()) == 1
    assert world.failures() == []
    assert world.texts() == ["b!"]
    (told,) = [line for line in logs if line["action"] == "work.untold"]
    assert told["source"] == "t.in/0/0"
    assert "limit" in told["reason"]


@pytest.mark.virtual
async def test_metadata_of_any_size_does_not_keep_a_failure_from_its_owner() -> None:
    """What a sender filled a whole record with is not repeated in the failure event, which then fits its topic."""
    world = await World.make()
    await world.start(Script(a=[Fail("refused")], b=[Fail("refused")]))
    world.write(Note(text="a", endpoint="crm", metadata={"note": "x" * 1_048_300}), key=b"")
    world.write(Note(text="b", metadata={"note": "x" * 65_000}))
    await world.until(lambda: world.at() == 2)
    await world.stop()
    large, small = world.failures()
    assert (large.endpoint, large.metadata) == ("crm", {})
    assert len(small.metadata["note"]) == 65_000
    assert world.dead() == []


@pytest.mark.virtual
async def test_a_dead_letter_too_large_stops_the_stage() -> None:
    """With no end left for a record, going on would lose it: the stage halts, names it, and leaves it uncommitted."""
    world = await World.make()
    run = await world.start(Script(bad=[Reject("no")]))
    run.producer.refuse = too_large("t.work.dlq")
    world.put("good")
    await world.until(lambda: world.at() == 1)
    world.put("bad")
    halt = await run.halted()
    assert "t.in/0/1" in halt.reason
    assert "dead_letter" in halt.reason
    assert world.at() == 1
    assert run.runner.state == "halted"
    assert run.runner.reason == halt.reason
    assert not run.runner.ready()
    assert world.metric("stage_halted") == 1


@pytest.mark.virtual
@pytest.mark.parametrize(
    "topic, answer",
    [
        ("t.out", None),
        ("t.failures", Fail("no")),
        ("t.work.dlq", Reject("no")),
        ("t.failures", Reject("no")),
        ("t.work.retry.10s", Retry("later")),
    ],
)
async def test_a_topic_that_refuses_for_good_stops_the_stage(topic: str, answer: Exception | None) -> None:
    """A topic that does not exist or may not be written is our configuration: halt, and lose nothing."""
    world = await World.make()
    run = await world.start(Script(a=[answer]))
    run.producer.refuse = lambda record: LookupError("no such topic") if record.topic == topic else None
    world.put("a", "b")
    halt = await run.halted()
    assert "no such topic" in halt.reason
    assert "t.in/0/0" in halt.reason
    assert not world.at()


@pytest.mark.virtual
async def test_an_output_partition_that_does_not_exist_stops_the_stage() -> None:
    """An output topic with fewer partitions than its source cannot keep partition numbers: nobody guesses one."""
    world = await World.make(partitions=2)
    await world.create("t.narrow.in", partitions=4)
    await world.broker.delete_topics(["t.in"])
    await world.create("t.in", partitions=4)
    run = await world.start(Script())
    world.put("a", partition=3)
    halt = await run.halted()
    assert "partition" in halt.reason


@pytest.mark.virtual
async def test_a_refusal_that_comes_for_a_partition_that_has_gone_changes_nothing() -> None:
    """A stale record is somebody else's: its refused output makes no dead letter here."""
    world = await World.make()
    run = await world.start(Script(a=[HUGE]), patience=1.0)
    run.producer.delay = 5.0
    world.put("a")
    await asyncio.sleep(1)
    run.consumer.stall = 3.0
    await asyncio.sleep(2.5)
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert world.texts() == ["a!"]
    assert world.dead() == []


# ---------------------------------------------------------------- what cannot be encoded


def away(noun: str, until: float) -> Callable[[str], None]:
    """A registry that is away for `noun` until a time."""

    def encoding(asked: str) -> None:
        if asked == noun and wall() < until:
            raise Defer("the registry is away", until=wall() + 2)

    return encoding


@pytest.mark.virtual
async def test_an_output_that_cannot_be_encoded_now_is_deferred() -> None:
    """While the registry is away nothing is written or lost; the record is tried again when it may be back."""
    world = await World.make()
    world.codec.encoding = away("out", EPOCH + 9)
    run = await world.start(Script())
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    assert len(run.handler.calls) == 6
    assert {call.attempt for call in run.handler.calls} == {1}
    assert world.dead() == []


@pytest.mark.virtual
@pytest.mark.parametrize("error", [Fail("refused"), Reject("ours")])
async def test_a_failure_event_that_cannot_be_encoded_now_is_deferred(error: Exception) -> None:
    """The end of a record waits for the registry as its outputs do, and comes when the registry is back."""
    world = await World.make()
    world.codec.encoding = away("failures", EPOCH + 9)
    await world.start(Script(a=[error] * 9))
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert len(world.failures()) == 1
    assert wall() >= EPOCH + 9


@pytest.mark.virtual
async def test_a_refused_output_whose_failure_event_must_wait_is_tried_again_in_its_place() -> None:
    """Two troubles at once: the output is too large and the registry away. The record comes back and ends once."""
    world = await World.make()
    world.codec.encoding = away("failures", EPOCH + 5)
    run = await world.start(Script(a=[HUGE, HUGE, HUGE, HUGE]))
    world.put("a", "b")
    await world.until(lambda: world.at() == 2)
    await world.stop()
    assert len(world.dead()) == len(world.failures()) == 1
    assert world.texts() == ["b!"]
    assert run.handler.texts.count("b") == 1


@pytest.mark.virtual
async def test_a_record_that_cannot_be_decoded_any_more_is_a_dead_letter_all_the_same() -> None:
    """Where the failure event cannot take endpoint and metadata from the payload, it is made of the headers alone."""
    world = await World.make()

    async def decoding(_: bytes) -> None:
        raise Defer("the registry is away", until=EPOCH + 3_600)

    world.codec.decoding = decoding
    run = await world.start(Script())
    run.producer.refuse = too_large("t.work.retry.10m")
    world.put("a", headers={h.CE_SUBJECT: "job-1"})
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert len(world.dead()) == 1
    assert header(world.records("t.failures")[0], h.CE_SUBJECT) == "job-1"
    assert run.handler.calls == []


@pytest.mark.virtual
async def test_a_deadline_that_passes_while_the_registry_is_away_does_not_crash_the_stage() -> None:
    """To say that the deadline has passed takes an event too: it waits like any other, and is said in the end."""
    world = await World.make()
    world.codec.encoding = away("failures", EPOCH + 9)
    await world.start(Script(), world.stage(enforce_deadline=True))
    world.put("a", headers={h.DEADLINE: str(int((EPOCH - 1) * 1000))})
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert [failure.code for failure in world.failures()] == ["deadline"]


@pytest.mark.virtual
async def test_an_output_that_fits_no_schema_is_a_dead_letter() -> None:
    """A payload that cannot be encoded at all is our bug."""
    world = await World.make()
    world.codec.encoding = lambda noun: _misfit(noun, "out")
    await world.start(Script())
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert header(world.dead()[0], f"{h.DEAD}code") == "unencodable"
    assert len(world.failures()) == 1


@pytest.mark.virtual
@pytest.mark.parametrize("error", [Fail("refused"), Reject("ours")])
async def test_a_failure_event_that_fits_no_schema_does_not_cost_the_record(error: Exception) -> None:
    """The raw record goes to the dead letters all the same, with a note on what could not be said."""
    world = await World.make()
    world.codec.encoding = lambda noun: _misfit(noun, "failures")
    await world.start(Script(a=[error]))
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    (letter,) = world.dead()
    assert "does not fit" in (header(letter, f"{h.DEAD}note") or "")
    assert world.failures() == []


def _misfit(noun: str, wanted: str) -> None:
    if noun == wanted:
        raise Reject("it does not fit its schema", code="unencodable")


@pytest.mark.virtual
async def test_a_codec_that_breaks_its_contract_stops_the_stage() -> None:
    """An exception that no port may raise, while a failure event is made, is a bug that must not go in silence."""
    world = await World.make()

    def encoding(noun: str) -> None:
        if noun == "failures":
            raise ZeroDivisionError("codec")

    world.codec.encoding = encoding
    run = await world.start(Script(a=[Fail("refused")]))
    world.put("a", "b")
    halt = await run.halted()
    assert "a worker of work died of a bug: ZeroDivisionError: codec" in halt.reason
    assert world.at() is None
    assert run.handler.texts == ["a"]


@pytest.mark.virtual
async def test_a_worker_that_is_cancelled_from_within_stops_the_stage() -> None:
    """Cancelled while it settles: nobody asked it to end, so it does not end in silence."""
    world = await World.make()

    def encoding(noun: str) -> None:
        if noun == "failures":
            raise asyncio.CancelledError

    world.codec.encoding = encoding
    run = await world.start(Script(a=[Fail("refused")]), world.stage(IN, FAILURES))
    world.put("a")
    assert isinstance(await run.halted(), Halt)
