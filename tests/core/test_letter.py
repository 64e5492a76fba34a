"""Reading dead letters: ours, other families', and whatever else stands in a dead-letter topic."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.deadletter import Grave, dead_headers, fingerprint
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import NAMESPACE, Job
from pipeline.core.letter import NO_CODE, LetterHead, letter_id, read_head, stage_of
from pipeline.core.record import Headers, Position, Record
from tests.core.strategies import NOW, few, hostile_headers

TRACE = "0af7651916cd43dd8448eb211c80319c"
JOB = Job("j1", "acme", "quick_answer", "standard", 1_700_000_900_000, 2, "c", 1_700_000_000_000, "", 3)
OURS: Headers = (
    (h.CE_ID, b"e1"),
    (h.CE_SUBJECT, b"j1"),
    (h.TRACEPARENT, f"00-{TRACE}-b7ad6b7169203331-01".encode()),
    *h.job_headers(JOB),
)
SOURCE = Record("p.contexts.batch", 3, 42, b"k", b"v", OURS, 1_700_000_000_000)
ORIGIN = Origin(SOURCE.position, SOURCE.timestamp_ms)
GRAVE = Grave("infer", "p.infer", "unexpected", "KeyError", "KeyError: 'x' of 7 Größe", "0.1.0", failed_at=NOW)


def dead(record: Record = SOURCE, grave: Grave = GRAVE, *more: tuple[str, bytes | None]) -> Record:
    """Bury a record as the runtime does."""
    origin = Origin(record.position, record.timestamp_ms)
    headers = dead_headers(record, origin, Tries(3, 1, 2), grave)
    return Record(f"p.{grave.stage}.dlq", 3, 9, record.key, record.value, (*headers, *more), 1_800_000_000_500)


def bare(headers: Headers, topic: str = "p.infer.dlq") -> LetterHead:
    """Read a letter that has these headers and no others."""
    return read_head(Record(topic, 0, 1, None, b"", headers, 5))


# ------------------------------------------------------------------------------------------------ ours
def test_a_letter_of_ours_tells_all() -> None:
    """Stage, group, reason, times, origin, tries, trace, deadline, and whose it is."""
    head = read_head(dead())
    assert ("pipeline", "infer", "p.infer") == (head.family, head.stage, head.group)
    assert ("unexpected", "KeyError", "KeyError: 'x' of 7 Größe") == (head.code, head.exception, head.reason)
    assert (fingerprint(GRAVE), "0.1.0") == (head.fingerprint, head.version)
    assert (1_800_000_000_000, 1_800_000_000_000) == (head.failed_at_ms, head.first_failure_ms)
    assert (ORIGIN, Tries(3, 1, 2)) == (head.origin, head.tries)
    assert (TRACE, 1_700_000_900_000) == (head.trace_id, head.deadline_ms)
    assert ("j1", "quick_answer", "acme", 2, 3) == (head.job, head.type, head.tenant, head.run, head.hops)
    assert ("", "", 0, False) == (head.replay_id, head.former, head.replays, head.opaque)


def test_a_letter_that_was_replayed_names_its_former_life() -> None:
    """The replay's id, the letter that was replayed, and the count."""
    former = (h.REPLAY_ID, b"r-1"), (h.REPLAY_LETTER, b"l-1"), (h.REPLAY_COUNT, b"2")
    head = read_head(dead(SOURCE, GRAVE, *former))
    assert ("r-1", "l-1", 2) == (head.replay_id, head.former, head.replays)


def test_what_a_replay_has_changed_is_told() -> None:
    """The run that it raised, the type that it set and its deadline, as the runtime had them; junk changes nothing."""
    former = (h.REPLAY_ID, b"r-1"), (h.REPLAY_LETTER, b"l-1"), (h.REPLAY_COUNT, b"1")
    change = (h.REPLAY_RUN, b"5"), (h.REPLAY_PATCH, b'{"type": "deep"}'), (h.REPLAY_DEADLINE, b"1900000000000")
    head = read_head(dead(SOURCE, GRAVE, *former, *change))
    assert (5, "deep", "acme", 1_900_000_000_000) == (head.run, head.type, head.tenant, head.deadline_ms)
    junk = read_head(
        dead(SOURCE, GRAVE, *former, (h.REPLAY_RUN, b"-5"), (h.REPLAY_PATCH, b"{"), (h.REPLAY_COUNT, None))
    )
    assert (2, "quick_answer", 0, "r-1") == (junk.run, junk.type, junk.replays, junk.replay_id)


def test_of_outsiders_headers_only_the_deadline_is_believed() -> None:
    """Job, type and tenant of a letter from an open topic are in its value: what its headers claim is not told."""
    head = read_head(dead(grave=replace(GRAVE, stage="preprocess")), open_topic=True)
    assert head.opaque
    assert ("", "", "", 0, 0) == (head.job, head.type, head.tenant, head.run, head.hops)
    assert (1_700_000_900_000, ORIGIN) == (head.deadline_ms, head.origin)
    told = head.told(JOB)
    assert ("j1", "quick_answer", "acme", 2, 3) == (told.job, told.type, told.tenant, told.run, told.hops)
    assert (False, head.id) == (told.opaque, told.id)


def test_the_id_is_of_the_place_and_the_time() -> None:
    """Another place or another time is another letter: a topic that was made anew has others."""
    record = dead()
    ids = {letter_id(record), read_head(record).id}
    others = {
        letter_id(replace(record, **change))
        for change in ({"topic": "q.infer.dlq"}, {"partition": 4}, {"offset": 10}, {"timestamp_ms": 6})
    }
    assert (1, 4) == (len(ids), len(others - ids))
    assert str(uuid5(NAMESPACE, '["letter","p.infer.dlq",3,9,1800000000500]')) in ids


@few
@given(hostile_headers, st.integers(0, h.MAX_COUNT))
def test_what_was_written_is_read(hostile: Headers, count: int) -> None:
    """Of any record that our runtime buried: where it stood, why it died, and whose it was."""
    job = replace(JOB, run=count, hops=count)
    record = replace(SOURCE, headers=(*hostile, *h.job_headers(job), (h.CE_SUBJECT, b"the-job")))
    head = read_head(dead(record))
    assert Origin(record.position, record.timestamp_ms) == head.origin
    assert (GRAVE.stage, GRAVE.code, GRAVE.reason) == (head.stage, head.code, head.reason)
    assert ("the-job", job.run, job.hops) == (head.job, head.run, head.hops)
    assert head.fingerprint == fingerprint(GRAVE)


def test_a_newer_version_of_ours_is_read() -> None:
    """What it tells in other ways is passed over, and what it leaves out is empty; it is still ours."""
    head = bare(((f"{h.DEAD}why", b"{}"), (f"{h.DEAD}at", b"2031-01-01T00:00:00Z")))
    assert ("pipeline", "infer", NO_CODE, 5) == (head.family, head.stage, head.code, head.failed_at_ms)


def test_a_missing_fingerprint_is_made_alike() -> None:
    """A letter without one belongs to the same kind as those that have it."""
    record = dead()
    headers = h.without(record.headers, lambda name: name == f"{h.DEAD}fingerprint")
    assert read_head(record).fingerprint == read_head(replace(record, headers=headers)).fingerprint


# ------------------------------------------------------------------------------------------------ others
def test_spring_is_read() -> None:
    """Numbers are Java's; the cause says more than the listener's own exception."""
    head = bare(
        (
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", (2).to_bytes(4, "big")),
            ("kafka_dlt-original-offset", (4_500_000_000).to_bytes(8, "big")),
            ("kafka_dlt-original-timestamp", (1_700_000_000_000).to_bytes(8, "big")),
            ("kafka_dlt-original-consumer-group", b"billing"),
            ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
            ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
            ("kafka_dlt-exception-message", "no such\norder: 7 €".encode()),
            ("retry_topic-attempts", (4).to_bytes(4, "big")),
        )
    )
    assert ("spring", "infer", "billing") == (head.family, head.stage, head.group)
    assert Origin(Position("orders", 2, 4_500_000_000), 1_700_000_000_000) == head.origin
    assert ("IllegalStateException", "java.lang.IllegalStateException") == (head.code, head.exception)
    assert ("no such order: 7 €", Tries(4)) == (head.reason, head.tries)


def test_connect_and_streams_are_read() -> None:
    """Both tell the place in digits; neither tells a time."""
    connect = bare(
        (
            ("__connect.errors.topic", b"rows"),
            ("__connect.errors.partition", b"1"),
            ("__connect.errors.offset", b"77"),
            ("__connect.errors.connector.name", b"sink"),
            ("__connect.errors.class.name", b"org.apache.kafka.connect.json.JsonConverter"),
            ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
            ("__connect.errors.exception.message", b"bad json"),
        ),
        "sink-dead",
    )
    streams = bare(
        (
            ("__streams.errors.topic", b"clicks"),
            ("__streams.errors.partition", b"0"),
            ("__streams.errors.offset", b"5"),
            ("__streams.errors.exception", b"org.apache.kafka.common.errors.SerializationException"),
            ("__streams.errors.message", b"size of data"),
        )
    )
    assert ("connect", "", "sink", "DataException") == (connect.family, connect.stage, connect.group, connect.code)
    assert (Origin(Position("rows", 1, 77), -1), "bad json") == (connect.origin, connect.reason)
    assert ("streams", "SerializationException") == (streams.family, streams.code)
    assert Origin(Position("clicks", 0, 5), -1) == streams.origin


@pytest.mark.parametrize(
    "partition, offset",
    [(b"\xff\xff\xff\xff", b"7"), (b"x", b"7"), (None, b"7"), (b"1", b""), (b"9" * 30, b"7"), (b"1", b"9" * 19)],
)
def test_a_place_that_does_not_read_is_none(partition: bytes | None, offset: bytes) -> None:
    """Negative, junk, null, empty and huge numbers name no place: such a letter cannot go back by itself."""
    head = bare(
        (
            ("__connect.errors.topic", b"rows"),
            ("__connect.errors.partition", partition),
            ("__connect.errors.offset", offset),
        )
    )
    assert ("connect", None) == (head.family, head.origin)


def test_a_letter_without_headers_is_told_by_its_topic() -> None:
    """Its stage, and nothing else; one in a topic of no stage has not even that."""
    head = bare(())
    assert ("unknown", "infer", NO_CODE, "", None) == (head.family, head.stage, head.code, head.reason, head.origin)
    assert (5, 0, None, Tries()) == (head.failed_at_ms, head.first_failure_ms, head.deadline_ms, head.tries)
    assert ("", "infer", "a", "") == (stage_of("orders"), stage_of("p.infer.dlq"), stage_of("a.dlq"), stage_of(""))


def test_what_steers_a_terminal_is_not_shown() -> None:
    """Control characters become spaces, in foreign messages and behind our own escapes."""
    spring = bare((("kafka_dlt-exception-message", b"\x1b[2Jgone\x00\xff"),))
    own = bare(((f"{h.DEAD}code", b"a%1Bb"), (f"{h.DEAD}reason", b"c%0Ad"), (f"{h.DEAD}stage", b"infer")))
    assert "[2Jgone \ufffd" == spring.reason
    assert ("a b", "c d") == (own.code, own.reason)


_FAMILIES = st.sampled_from(
    [
        *(f"kafka_dlt-{one}" for one in ("original-topic", "original-partition", "original-offset")),
        *("kafka_dlt-exception-message", "__connect.errors.topic", "__streams.errors.offset", "retry_topic-attempts"),
        *(f"{h.DEAD}{one}" for one in ("stage", "code", "reason", "fingerprint", "at", "version", "new")),
        *(h.REPLAY_ID, h.REPLAY_LETTER, h.REPLAY_COUNT, h.REPLAY_RUN, h.REPLAY_PATCH, h.REPLAY_DEADLINE),
    ]
)


@few
@given(
    hostile_headers,
    st.lists(st.tuples(_FAMILIES, st.none() | st.binary(max_size=12) | st.sampled_from([b"t", b"%FF%0A"]))),
    st.booleans(),
    st.integers(-1, 2**53),
)
def test_nothing_is_raised_whatever_the_headers_are(
    hostile: Headers, strange: list[tuple[str, bytes | None]], open_topic: bool, written: int
) -> None:
    """Every text can be shown, every number is sound, and the id is the place's."""
    record = Record("p.infer.dlq", 0, 1, None, None, (*hostile, *strange), written)
    head = read_head(record, open_topic=open_topic)
    texts = (*head.kind, head.reason, head.job, head.type, head.tenant, head.trace_id, head.replay_id, head.former)
    assert all(text.isprintable() for text in texts)
    assert all(0 <= one <= h.MAX_TIME for one in (head.failed_at_ms, head.first_failure_ms, head.deadline_ms or 0))
    assert (16, head.id) == (len(head.fingerprint) if head.family != "pipeline" else 16, letter_id(record))
    assert head.origin is None or head.origin.position.offset >= 0
