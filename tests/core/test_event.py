"""Events: what a record becomes, whom it believes, and what a child inherits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.deadletter import copy_headers
from pipeline.core.event import MAX_ID, Event, receive
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import child_id, job_id, positional_job_id
from pipeline.core.payloads import Completion, Document, JobPayload, Payload, Prompt, Request
from pipeline.core.record import Headers, Record
from pipeline.core.trace import root
from tests.core.strategies import KNOWN, NOW, events, few, hostile_headers, payloads, records, tries, unknown_headers

ASKED = Request(type="quick_answer", input="Why?")
SENT_MS = int(NOW * 1000) - 5_000
BELIEVED = {h.LANE, h.DEADLINE, h.CONVERSATION}
"""Our own headers that outsiders may set."""
NEVER_READ = {name for name in KNOWN if name.startswith(("pipeline-", h.X_ORIGINAL))} - BELIEVED
"""Our own headers that outsiders may not set."""


def _sent(*headers: tuple[str, bytes | None], key: bytes | None = None, timestamp_ms: int = SENT_MS) -> Record:
    return Record("pipeline.requests", 1, 7, key, b"value", headers, timestamp_ms)


def _outsiders(record: Record, payload: Payload = ASKED, now: float = NOW) -> Event[Payload]:
    return receive(record, payload, open_topic=True, copy=False, now=now)


# ------------------------------------------------------------------------------------------------ our own topics
@few
@given(events, records())
def test_what_we_write_we_read(event: Event[Payload], place: Record) -> None:
    """An event survives its headers: id, job, trace, key, parent, output and what it carries; only tries begin anew."""
    record = replace(place, key=event.key, headers=event.headers("prompts", NOW))
    read = receive(record, event.payload, open_topic=False, copy=False, now=NOW)
    origin = Origin(record.position, record.timestamp_ms)
    assert replace(event, origin=origin, tries=Tries(), not_before=0.0) == read


@few
@given(events, records(), tries, st.floats(NOW, 2 * NOW))
def test_a_copy_of_what_we_write_is_the_same_event(
    event: Event[Payload], place: Record, counted: Tries, not_before: float
) -> None:
    """A retry copy, and a copy of that, change the tries and the time only: the origin stays the first record."""
    record = replace(place, key=event.key, headers=event.headers("prompts", NOW))
    first = receive(record, event.payload, open_topic=False, copy=False, now=NOW)
    for topic in ("pipeline.infer.retry.10s", "pipeline.infer.retry.1m"):
        headers = copy_headers(record, first.origin, counted, now=NOW, not_before=not_before)
        record = Record(topic, 0, 9, record.key, record.value, headers, SENT_MS)
        again = receive(record, event.payload, open_topic=False, copy=True, now=NOW)
        assert replace(first, tries=counted, not_before=again.not_before) == again
        assert 0 <= again.not_before - not_before < 0.0011


@few
@given(events)
def test_our_headers_are_cloudevents(event: Event[Payload]) -> None:
    """Binary mode for Kafka (section 3.2): the required attributes, once each, in ASCII, the job as the subject."""
    written = event.headers("prompts", 0.0015)
    ours = written[: len(written) - len(event.carried)]
    read = h.texts(ours)
    assert len(ours) == len(read)
    expected = {
        "ce_specversion": "1.0",
        "ce_id": event.id,
        "ce_source": "pipeline",
        "ce_type": "pipeline.prompts",
        "ce_time": "1970-01-01T00:00:00.001+00:00",
        "ce_subject": event.job.id,
        "content-type": "application/avro",
        "pipeline-source": str(event.origin.position),
    }
    assert expected == {name: read[name] for name in expected}


@few
@given(records(), payloads, st.booleans(), st.booleans())
def test_no_headers_whatever_upset_anything(record: Record, payload: Payload, is_open: bool, copy: bool) -> None:
    """Any bytes make an event, and its child, its headers and its copy can be written too."""
    event = receive(record, payload, open_topic=is_open, copy=copy, now=NOW)
    copied = copy_headers(record, event.origin, event.tries, now=NOW, not_before=event.not_before)
    child = event.derive(ASKED, "stage")
    written = replace(record, key=child.key, headers=child.headers("prompts", NOW))
    again = receive(written, ASKED, open_topic=False, copy=False, now=NOW)
    assert 1 == sum(name == h.ORIGINAL for name, _ in copied)
    assert (child.id, child.job, child.carried) == (again.id, again.job, again.carried)


def test_a_record_of_ours_without_headers_is_named_by_its_position() -> None:
    """A stranger's record on one of our own topics still has an id, a job, a trace and a key."""
    record = _sent()
    event = receive(record, JobPayload(), open_topic=False, copy=False, now=NOW)
    name = positional_job_id(record)
    assert (name, name, root(name), name.encode()) == (event.id, event.job.id, event.trace, event.key)
    assert (None, "", ()) == (event.parent, event.output, event.carried)


# ------------------------------------------------------------------------------------------------ open topics
@few
@given(hostile_headers, payloads, st.none() | st.binary())
def test_outsiders_are_believed_in_nothing_else(headers: Headers, payload: Payload, key: bytes | None) -> None:
    """On an open topic our own headers might as well be missing, but for lane, deadline and conversation."""
    honest = tuple(header for header in headers if header[0] not in NEVER_READ | {h.CE_SUBJECT})
    assert _outsiders(_sent(*honest, key=key), payload) == _outsiders(_sent(*headers, key=key), payload)


BOOKKEEPING = (
    *((h.ATTEMPTS, b"2"), (h.DEFERRALS, b"2"), (h.TIMEOUTS, b"2"), (h.NOT_BEFORE, b"2000000000000")),
    *((h.ORIGINAL, b"other/0/1/2"), (h.FIRST_FAILURE, b"1")),
)
EVERYTHING = (
    *BOOKKEEPING,
    *(
        (h.TENANT, b"other"),
        (h.TYPE, b"dear"),
        (h.RUN, b"4"),
        (h.CATALOG, b"c"),
        (h.ACCEPTED_AT, b"1"),
        (h.HOPS, b"31"),
    ),
    *((h.COST, b"9.5"), (h.SOURCE, b"other/0/1"), (h.PARENT, b"parent"), (h.OUTPUT, b"0/1"), (h.CE_SUBJECT, b"job")),
    *(
        (f"{h.REPLAY}by", b"me"),
        (f"{h.DEAD}reason", b"why"),
        (f"{h.X_ORIGINAL}topic", b"other"),
        ("pipeline-new", b"1"),
        (h.SETTLES, b"other/0/1/2"),
    ),
)


@pytest.mark.parametrize("timestamp_ms", [SENT_MS, -1])
def test_a_perfect_forgery_changes_nothing(timestamp_ms: int) -> None:
    """Each of our own headers, with a value that we would write ourselves, is ignored on an open topic."""
    honest = _outsiders(_sent(timestamp_ms=timestamp_ms))
    assert honest == _outsiders(_sent(*EVERYTHING, timestamp_ms=timestamp_ms))


def test_bookkeeping_counts_on_retry_topics_only() -> None:
    """On a work topic of our own, too, a record has no tries behind it and stands where it stands."""
    plain = receive(_sent(), ASKED, open_topic=False, copy=False, now=NOW)
    assert plain == receive(_sent(*BOOKKEEPING), ASKED, open_topic=False, copy=False, now=NOW)


@few
@given(hostile_headers, payloads, tries)
def test_a_copy_of_an_outsiders_record_is_the_same_event(headers: Headers, payload: Payload, counted: Tries) -> None:
    """Ids, job, trace and key are those of the first try, also where the sender forged a copy's bookkeeping."""
    record = _sent(*headers)
    first = _outsiders(record, payload)
    told = copy_headers(record, first.origin, counted, now=NOW, not_before=NOW)
    copy = Record("pipeline.preprocess.retry.10s", 0, 99, record.key, record.value, told, SENT_MS + 10_000)
    again = receive(copy, payload, open_topic=True, copy=True, now=NOW + 60)
    assert replace(first, tries=counted, not_before=NOW) == again


def test_lane_deadline_and_conversation_of_an_outsider_count() -> None:
    """The three headers that senders may use, and nothing of them where they are junk."""
    said = _outsiders(_sent((h.LANE, b"batch"), (h.DEADLINE, b"5"), (h.CONVERSATION, b"caf%C3%A9"))).job
    junk = _outsiders(_sent((h.LANE, b"fast"), (h.DEADLINE, b"soon"), (h.CONVERSATION, b"\xff"))).job
    assert ("batch", 5, "café") == (said.lane, said.deadline_ms, said.conversation)
    assert (None, None, "") == (junk.lane, junk.deadline_ms, junk.conversation)


def test_the_tenant_and_the_type_are_the_payloads() -> None:
    """Whoever may write the topic may speak for its tenants, in the payload; headers say nothing about it."""
    forged = ((h.TENANT, b"other"), (h.TYPE, b"dear"), (h.HOPS, b"31"), (h.COST, b"9"), (h.RUN, b"4"))
    job = _outsiders(_sent(*forged), ASKED.model_copy(update={"tenant": "acme"})).job
    assert ("acme", "quick_answer", 0, 0.0, 0) == (job.tenant, job.type, job.hops, job.cost_usd, job.run)
    assert ("default", "") == (
        _outsiders(_sent(*forged), JobPayload()).job.tenant,
        _outsiders(_sent(), JobPayload()).job.type,
    )
    document = Document(source="s", id="1", tenant="acme", title="", body="", version=1)
    assert "acme" == _outsiders(_sent(), document).job.tenant


def test_a_request_with_an_id_is_one_job_wherever_it_stands() -> None:
    """`ce_id` and `ce_source` name the job, else the payload's id; position, time and bytes do not matter then."""
    header = (h.CE_ID, b"order-1"), (h.CE_SOURCE, b"shop")
    named = ASKED.model_copy(update={"id": "order-2", "tenant": "acme"})
    assert job_id("acme", "shop", "order-1") == _outsiders(_sent(*header), named).job.id
    assert job_id("acme", "shop", "order-1") == _outsiders(replace(_sent(*header), offset=8), named).id
    assert job_id("acme", "", "order-2") == _outsiders(_sent(), named).id
    assert job_id("default", "shop", "order-1") == _outsiders(_sent(*header), JobPayload()).id


@pytest.mark.parametrize("text", ["", "x" * (MAX_ID + 1)])
def test_an_id_that_is_empty_or_too_long_is_no_id(text: str) -> None:
    """The record is then named by its position, as one without an id."""
    record = _sent((h.CE_ID, text.encode()))
    assert positional_job_id(record) == _outsiders(record).id
    assert positional_job_id(_sent()) == _outsiders(_sent(), ASKED.model_copy(update={"id": text})).id
    long_source = _sent((h.CE_ID, b"1"), (h.CE_SOURCE, b"x" * (MAX_ID + 1)))
    assert positional_job_id(long_source) == _outsiders(long_source).id


def test_the_longest_id_is_an_id() -> None:
    """The limit itself is still within."""
    assert job_id("default", "", "x" * MAX_ID) == _outsiders(_sent((h.CE_ID, b"x" * MAX_ID))).id


@pytest.mark.parametrize(
    "key, wanted, expected",
    [(b"k", "w", b"k"), (b"", "w", b""), (None, "w", b"w"), (None, "", None), (None, None, None)],
)
def test_the_key_is_the_callers(key: bytes | None, wanted: str | None, expected: bytes | None) -> None:
    """Kafka's key wins, then the payload's; with neither no order is needed and the job's id is the key."""
    event = _outsiders(_sent(key=key), ASKED.model_copy(update={"key": wanted}))
    assert (event.job.id.encode() if expected is None else expected) == event.key


def test_an_outsiders_span_is_continued() -> None:
    """The event is a child of the sender's span, with its state and baggage."""
    parent, trace_id = "00f067aa0ba902b7", "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = _sent((h.TRACEPARENT, f"00-{trace_id}-{parent}-00".encode()), (h.TRACESTATE, b"a=1"), (h.BAGGAGE, b"b=2"))
    span = _outsiders(sent).trace
    assert (trace_id, "00", "a=1", "b=2") == (span.trace_id, span.flags, span.state, span.baggage)
    assert parent != span.span_id


def test_baggage_needs_no_span() -> None:
    """W3C Baggage stands by itself: without a span it stays, while a state without its span is dropped."""
    span = _outsiders(_sent((h.TRACESTATE, b"a=1"), (h.BAGGAGE, b"b=2"))).trace
    assert ("", "b=2") == (span.state, span.baggage)


# ------------------------------------------------------------------------------------------------ acceptance
@pytest.mark.parametrize(
    "timestamp_ms, accepted_ms",
    [
        (SENT_MS, SENT_MS),
        (int(NOW * 1000), int(NOW * 1000)),
        (-1, int(NOW * 1000)),
        (0, int(NOW * 1000)),
        (2**53, int(NOW * 1000)),
    ],
)
def test_a_request_is_accepted_when_it_was_written(timestamp_ms: int, accepted_ms: int) -> None:
    """A timestamp that is absent or ahead of our clock counts as now: a deadline from the future would never come."""
    assert accepted_ms == _outsiders(_sent(timestamp_ms=timestamp_ms)).job.accepted_at_ms


@pytest.mark.parametrize("timestamp_ms", [-1, 2**53])
def test_a_retry_gives_no_extra_time(timestamp_ms: int) -> None:
    """Without a good timestamp, all copies count from the first failure, however often they come again."""
    record = _sent((h.FIRST_FAILURE, b"1"), timestamp_ms=timestamp_ms)
    now = NOW
    for _ in range(5):
        origin = _outsiders(record).origin if now == NOW else h.origin(record, h.texts(record.headers), copy=True)
        headers = copy_headers(record, origin, Tries(), now=now, not_before=now + 600)
        record, now = Record("tier", 0, 5, None, b"value", headers, int(now * 1000)), now + 600
        event = receive(record, ASKED, open_topic=True, copy=True, now=now)
        assert int(NOW * 1000) == event.job.accepted_at_ms


def test_a_copy_that_lost_its_bookkeeping_is_an_original() -> None:
    """Without its headers a copy has no tries, no delay, and counts from now."""
    event = receive(_sent(timestamp_ms=-1), ASKED, open_topic=True, copy=True, now=NOW)
    assert (Tries(), 0.0, int(NOW * 1000)) == (event.tries, event.not_before, event.job.accepted_at_ms)


# ------------------------------------------------------------------------------------------------ children
ANSWER = Completion.model_validate(
    {"input": "", "model": "", "text": "", "finish_reason": "", "prompt_tokens": 0, "completion_tokens": 0}
    | {"latency_ms": 0, "cost_usd": 0.5}
)
PROMPT = Prompt(type="t", input="i", input_tokens=1, lane="batch", deadline_ms=5, catalog="c1", conversation="chat")


@few
@given(events)
def test_a_child_inherits_what_a_stage_must_not_break(event: Event[Payload]) -> None:
    """Job id, key, trace, origin and what is carried stay; tries begin anew; one more stage has been passed."""
    child = event.derive(JobPayload(), "stage", 1, 3)
    assert (event.job.id, event.key, event.carried, event.origin) == (
        child.job.id,
        child.key,
        child.carried,
        child.origin,
    )
    assert (event.id, "1/3", Tries(), 0.0) == (child.parent, child.output, child.tries, child.not_before)
    assert event.job.advanced(hops=min(event.job.hops + 1, h.MAX_COUNT)) == child.job
    assert event.trace.child(child.id) == child.trace


@few
@given(events)
def test_a_childs_id_is_its_parents_stages_and_places(event: Event[Payload]) -> None:
    """The same output of the same event has the same id on every try; index, stage and run tell others apart."""
    child = event.derive(JobPayload(), "stage")
    assert child_id(event.id, "stage", 0, event.job.run) == child.id
    assert child.id == replace(event, tries=Tries(2, 1, 1), carried=()).derive(ASKED, "stage").id
    others = [event.derive(ASKED, "stage", 1, 2), event.derive(ASKED, "other")]
    others.append(replace(event, job=event.job.advanced(run=event.job.run + 1)).derive(ASKED, "stage"))
    assert 4 == len({child.id, *(other.id for other in others)})


@few
@given(events)
def test_what_a_payload_says_about_its_job_holds_for_the_child(event: Event[Payload]) -> None:
    """A prompt places the job, a completion adds its cost; the parent's job stays as it was."""
    before = event.job
    job = event.derive(PROMPT, "preprocess").job
    assert ("t", "batch", 5, "c1", "chat") == (job.type, job.lane, job.deadline_ms, job.catalog, job.conversation)
    assert before.cost_usd + 0.5 == event.derive(ANSWER, "infer").job.cost_usd
    assert before == event.job


@few
@given(unknown_headers)
def test_unknown_headers_reach_the_grandchildren(headers: Headers) -> None:
    """What senders add for themselves travels the whole chain, byte for byte."""
    event = _outsiders(_sent(*headers))
    for number in range(3):
        child = event.derive(JobPayload(), f"stage{number}")
        record = Record("pipeline.prompts", 0, number, child.key, b"", child.headers("prompts", NOW))
        event = receive(record, JobPayload(), open_topic=False, copy=False, now=NOW)
    assert headers == event.carried
