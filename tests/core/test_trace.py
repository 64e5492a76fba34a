"""W3C Trace Context, level 1: what is read, what is refused, and what a child is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.trace import Trace, parse, root
from tests.core.strategies import few, names, printable, texts, traces

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
EXAMPLE = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.mark.parametrize("flags", ["01", "00"])
def test_the_examples_of_the_specification_are_read(flags: str) -> None:
    """Both examples of section 3.2.2, sampled and not, with state and baggage beside them."""
    read = parse(f"00-{TRACE_ID}-{SPAN_ID}-{flags}", "congo=t61rcWkgMzE", "userId=alice")
    assert Trace(TRACE_ID, SPAN_ID, flags, "congo=t61rcWkgMzE", "userId=alice") == read


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "junk",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"0-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID}0-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID[:-1]}-01",
        f"00-{TRACE_ID}-{SPAN_ID}0-01",
        f"00-{TRACE_ID[:-1]}.-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}-0x",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00{TRACE_ID}{SPAN_ID}01",
        f"0x-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01\n-",
    ],
)
def test_what_is_malformed_is_no_trace(malformed: str) -> None:
    """All-zero ids, version ff, wrong lengths, foreign characters: the sender's trace is ignored, never repaired."""
    assert parse(malformed, "state", "baggage") is None


@pytest.mark.parametrize(
    "upper", [EXAMPLE.upper(), f"00-{TRACE_ID.upper()}-{SPAN_ID}-01", f"FF-{TRACE_ID}-{SPAN_ID}-01"]
)
def test_capitals_are_malformed(upper: str) -> None:
    """Section 3.2.2.3 allows lower-case digits only, so others ignore such a span and we would continue a lone one."""
    assert parse(upper) is None


@pytest.mark.parametrize("tail", ["-", "-what-the-future-will-be-like", ".", "x"])
def test_version_00_ends_after_its_flags(tail: str) -> None:
    """Whatever follows the flags of version 00 makes it malformed."""
    assert parse(EXAMPLE + tail) is None


@pytest.mark.parametrize("version", ["01", "cc", "fe"])
@pytest.mark.parametrize("tail", ["", "-", "-what-the-future-will-be-like"])
def test_a_future_version_is_read_as_far_as_we_know_it(version: str, tail: str) -> None:
    """A higher version may go on after another dash; we continue it as version 00 without its tail."""
    read = parse(f"{version}-{TRACE_ID}-{SPAN_ID}-01{tail}")
    assert Trace(TRACE_ID, SPAN_ID) == read
    assert EXAMPLE == Trace(TRACE_ID, SPAN_ID).traceparent


@pytest.mark.parametrize("tail", [".what", "x", "0"])
def test_a_future_version_goes_on_after_a_dash_only(tail: str) -> None:
    """Without the dash we cannot tell where its flags end."""
    assert parse(f"cc-{TRACE_ID}-{SPAN_ID}-01{tail}") is None


@pytest.mark.parametrize("given_flags, kept", [("ff", "01"), ("03", "01"), ("fe", "00"), ("0a", "00")])
def test_flags_that_level_1_does_not_know_are_cleared(given_flags: str, kept: str) -> None:
    """Only `sampled` is handed on (section 3.2.2.5)."""
    assert Trace(TRACE_ID, SPAN_ID, kept) == parse(f"00-{TRACE_ID}-{SPAN_ID}-{given_flags}")


def test_blanks_around_a_traceparent_do_not_matter() -> None:
    """Some senders pad their headers."""
    assert Trace(TRACE_ID, SPAN_ID) == parse(f" {EXAMPLE} ")


@given(traces)
def test_what_we_write_we_read(trace: Trace) -> None:
    """Spelling a span and reading it again changes nothing."""
    assert trace == parse(trace.traceparent, trace.state, trace.baggage)


@given(texts | printable)
def test_reading_never_raises(text: str) -> None:
    """Any text is a span or none."""
    assert isinstance(parse(text), Trace | None)


@few
@given(traces, names)
def test_a_child_stays_in_its_trace(trace: Trace, event_id: str) -> None:
    """A child differs from its parent in the span's id only, and the same event gives the same span."""
    child = trace.child(event_id)
    assert Trace(trace.trace_id, child.span_id, trace.flags, trace.state, trace.baggage) == child
    assert child == trace.child(event_id)


@few
@given(st.lists(names, min_size=2, max_size=2, unique=True))
def test_different_events_are_different_spans(ids: list[str]) -> None:
    """Two events of a trace never share a span; two jobs never share a trace."""
    span = root("job")
    assert span.child(ids[0]).span_id != span.child(ids[1]).span_id
    assert root(ids[0]).trace_id != root(ids[1]).trace_id


@few
@given(names, printable)
def test_a_new_trace_is_well_formed_and_keeps_the_baggage(job_id: str, baggage: str) -> None:
    """A job whose sender sent no span gets one by its id; baggage is a header of its own and stays."""
    span = root(job_id, baggage)
    assert span == parse(span.traceparent, "", baggage)
    assert span == root(job_id, baggage)
