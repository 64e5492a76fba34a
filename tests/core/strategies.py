"""What hypothesis draws for the core: jobs, spans, events, records, and headers as an enemy would write them."""

from __future__ import annotations

import string

from hypothesis import settings
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.event import Event
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import LANES, Job
from pipeline.core.payloads import JobPayload, Payload, Request
from pipeline.core.record import Header, Headers, Position, Record
from pipeline.core.trace import Trace
from tests.examples import at_most

NOW = 1_800_000_000.0
"""The time of most tests, in seconds since the epoch."""

few = settings(max_examples=at_most(25))
"""For tests whose input is large, and slow to draw: many runs make up for few examples."""

KNOWN = (
    *(h.CE_SPECVERSION, h.CE_ID, h.CE_SOURCE, h.CE_TYPE, h.CE_TIME, h.CE_SUBJECT, h.CONTENT_TYPE),
    *(h.TRACEPARENT, h.TRACESTATE, h.BAGGAGE),
    *(h.TENANT, h.TYPE, h.LANE, h.DEADLINE, h.RUN, h.CATALOG, h.ACCEPTED_AT, h.CONVERSATION, h.HOPS, h.COST),
    *(h.ATTEMPTS, h.DEFERRALS, h.TIMEOUTS, h.NOT_BEFORE, h.SOURCE, h.PARENT, h.OUTPUT, h.ORIGINAL, h.FIRST_FAILURE),
    *(h.SETTLES, f"{h.REPLAY}by", f"{h.DEAD}reason", f"{h.X_ORIGINAL}topic", "pipeline-ref", "pipeline-new"),
)
"""Every name that means something to us, and one of each family."""

_PLAIN_VALUES = (
    *(b"", b"0", b"1", b"3", b"-1", b"999999999999999999999999", b"soon", b"nan", b"1e308", b"0.5", b"batch", b"acme"),
    *(b"requests/0/1/2", b"t/--1/2/3", b"t/0/1/99999999999999999999", b"a/b/c/d/e", b"%", b"%4", b"%FF", b"%E4%BD"),
    *(b"id\n", b"tab\t", b"caf\xc3\xa9", b"\xff\xfe", b"\x00"),
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"x" * (h.MAX_VALUE + 1),
)

texts = st.text(max_size=40)
printable = st.text(string.printable[:95], max_size=40)
names = printable.filter(bool)
hexadecimal = st.text("0123456789abcdef", min_size=32, max_size=32).filter(lambda text: text[:16].strip("0") != "")
traces = st.builds(
    lambda ids, flags, state, baggage: Trace(ids, ids[:16], flags, state, baggage),
    hexadecimal,
    st.sampled_from(["00", "01"]),
    printable,
    printable,
)
jobs = st.builds(
    Job,
    id=names,
    tenant=texts.filter(bool),
    type=texts,
    lane=st.sampled_from([*LANES, None]),
    deadline_ms=st.none() | st.integers(0, h.MAX_TIME),
    run=st.integers(0, h.MAX_COUNT),
    catalog=texts,
    accepted_at_ms=st.integers(0, h.MAX_TIME),
    conversation=texts,
    hops=st.integers(0, h.MAX_COUNT),
    cost_usd=st.integers(0, 10**15).map(lambda billionths: billionths / 1e9),
)
tries = st.builds(Tries, *[st.integers(0, h.MAX_COUNT)] * 3)
positions = st.builds(
    Position,
    st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=249),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
)
timestamps = st.just(-1) | st.integers(0, 2**53)
unknown_headers: st.SearchStrategy[Headers] = st.lists(
    st.tuples(st.sampled_from(["app", "x-team", "Pipeline-Tenant", "traceparent2", ""]), st.none() | st.binary()),
    max_size=4,
).map(tuple)
hostile_header: st.SearchStrategy[Header] = st.tuples(
    st.sampled_from(KNOWN) | st.text(max_size=8),
    st.none() | st.sampled_from(_PLAIN_VALUES) | st.binary(max_size=20),
)
hostile_headers: st.SearchStrategy[Headers] = st.lists(hostile_header, max_size=12).map(tuple)
payloads: st.SearchStrategy[Payload] = st.just(JobPayload()) | st.builds(
    Request,
    type=texts,
    input=texts,
    id=st.none() | texts,
    tenant=st.none() | texts,
    key=st.none() | texts,
)
events: st.SearchStrategy[Event[Payload]] = st.builds(
    Event,
    id=names,
    job=jobs,
    payload=payloads,
    key=st.binary(),
    trace=traces,
    origin=st.builds(Origin, positions, timestamps),
    tries=tries,
    not_before=st.floats(0, 1e10),
    parent=st.none() | names,
    output=printable,
    carried=unknown_headers,
)


@st.composite
def records(draw: st.DrawFn, headers: st.SearchStrategy[Headers] = hostile_headers) -> Record:
    """Draw a record with hostile headers, unless others are asked for."""
    topic, partition, offset = draw(positions)
    key, value = draw(st.none() | st.binary()), draw(st.none() | st.binary())
    return Record(topic, partition, offset, key, value, draw(headers), draw(timestamps))
