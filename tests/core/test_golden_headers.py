"""What a stage writes is written down here, byte for byte: a faster way of writing it must not be another way."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid5

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.event import receive
from pipeline.core.job import NAMESPACE, child_id, job_id
from pipeline.core.payloads import JobPayload
from pipeline.core.record import Headers, Record
from pipeline.core.trace import Trace, root
from tests.core.strategies import few, texts

NOW = 1_763_705_610.0625
SENT: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"7a3e6980-0cd2-5be7-95ec-639b696e514c"),
    ("ce_source", b"pipeline"),
    ("ce_type", b"pipeline.prompts"),
    ("ce_time", b"2025-11-21T06:13:29.000+00:00"),
    ("ce_subject", b"934fdc4c-041c-5026-b186-5072f980b78c"),
    ("content-type", b"application/avro"),
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", b"a=1"),
    ("baggage", b"b=2"),
    ("pipeline-tenant", b"caf%C3%A9 100%25"),
    ("pipeline-type", b"quick_answer"),
    ("pipeline-lane", b"batch"),
    ("pipeline-deadline", b"001763705700000"),
    ("pipeline-run", b"2"),
    ("pipeline-catalog", b"3f2b8a01c5d4"),
    ("pipeline-accepted-at", b"1763705600000"),
    ("pipeline-conversation", b"chat 1"),
    ("pipeline-hops", b"2"),
    ("pipeline-cost", b"0.25"),
    ("pipeline-source", b"t.requests/1/2"),
    ("pipeline-output", b"0/1"),
    ("pipeline-parent", b"parent"),
    ("x-team", b"\xff"),
    ("x-team", None),
)
RECORD = Record("t.prompts", 3, 42, b"key", b"value", SENT, 1_763_705_609_000)
EVENT = receive(RECORD, JobPayload(), open_topic=False, copy=False, now=NOW)
WRITTEN: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"d1300019-8afc-591e-aa4e-b550d5dfa638"),
    ("ce_source", b"pipeline"),
    ("ce_type", b"pipeline.contexts"),
    ("ce_time", b"2025-11-21T06:13:30.062+00:00"),
    ("ce_subject", b"934fdc4c-041c-5026-b186-5072f980b78c"),
    ("content-type", b"application/avro"),
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-0777596a3f003413-01"),
    ("tracestate", b"a=1"),
    ("baggage", b"b=2"),
    ("pipeline-tenant", b"caf%C3%A9 100%25"),
    ("pipeline-type", b"quick_answer"),
    ("pipeline-lane", b"batch"),
    ("pipeline-deadline", b"1763705700000"),
    ("pipeline-run", b"2"),
    ("pipeline-catalog", b"3f2b8a01c5d4"),
    ("pipeline-accepted-at", b"1763705600000"),
    ("pipeline-conversation", b"chat 1"),
    ("pipeline-hops", b"3"),
    ("pipeline-cost", b"0.250000000"),
    ("pipeline-source", b"t.prompts/3/42"),
    ("pipeline-output", b"1/2"),
    ("pipeline-parent", b"7a3e6980-0cd2-5be7-95ec-639b696e514c"),
    ("x-team", b"\xff"),
    ("x-team", None),
)

FEWEST: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"62a97dd3-ece9-511f-999d-7ec5d19c801e"),
    ("ce_source", b"pipeline"),
    ("ce_type", b"pipeline.prompts"),
    ("ce_time", b"1970-01-01T00:00:00.000+00:00"),
    ("ce_subject", b"4f8efbc6-888b-59fa-ae6f-e9c1b10b3a3c"),
    ("content-type", b"application/avro"),
    ("traceparent", b"00-b43f802204a6664ad00551534ff39559-a8402cca2986a746-01"),
    ("pipeline-tenant", b"default"),
    ("pipeline-run", b"0"),
    ("pipeline-accepted-at", b"5"),
    ("pipeline-hops", b"1"),
    ("pipeline-cost", b"0.000000000"),
    ("pipeline-source", b"t.requests/0/1"),
    ("pipeline-output", b"0/1"),
    ("pipeline-parent", b"4f8efbc6-888b-59fa-ae6f-e9c1b10b3a3c"),
)


def test_a_childs_headers_are_the_same_for_ever() -> None:
    """Names, order and bytes: the job's are copied, the record's are fresh, unknown ones follow."""
    assert WRITTEN == EVENT.derive(JobPayload(), "retrieve", 1, 2).headers("contexts", NOW)


def test_a_first_childs_headers_are_the_same_for_ever() -> None:
    """What is not known is not written: a stranger's request gives a child with the fewest headers."""
    record = Record("t.requests", 0, 1, None, b"value", (), 5)
    event = receive(record, JobPayload(), open_topic=True, copy=False, now=NOW)
    assert FEWEST == event.derive(JobPayload(), "preprocess").headers("prompts", 0.0)


def test_spans_are_the_same_for_ever() -> None:
    """A retry, or another worker, gives the same span."""
    assert "00-5e8c9902207afaeb7120430c585a445f-7f632d543f3f6369-01" == root("job").traceparent
    assert "68677d2794eacc25" == Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7").child("event").span_id


@few
@given(texts, texts, texts)
def test_ids_are_uuids_of_json(one: str, two: str, three: str) -> None:
    """RFC 9562 section 5.5 over our namespace and the parts as a JSON list in ASCII, without blanks."""
    assert str(uuid5(NAMESPACE, json.dumps(["job", one, two, three], separators=(",", ":")))) == job_id(one, two, three)
    told = json.dumps(["event", one, two, 3, 4], separators=(",", ":"))
    assert str(uuid5(NAMESPACE, told)) == child_id(one, two, 3, 4)


@given(st.floats(0, 4e9) | st.integers(0, 4 * 10**12).map(lambda millisecond: millisecond / 1000))
def test_the_time_is_what_datetime_makes_of_it(now: float) -> None:
    """RFC 3339 in UTC to the millisecond, cut and not rounded."""
    expected = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    assert expected == h.texts(EVENT.headers("prompts", now))[h.CE_TIME]
