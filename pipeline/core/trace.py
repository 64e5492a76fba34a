"""W3C Trace Context, level 1: read what arrives, derive what leaves.

Span ids come from event ids, so the same input gives the same trace and `core` stays free of randomness.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pipeline.core.quick import quick

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@quick
@dataclass(frozen=True, slots=True)
class Trace:
    """One span: its trace, its own id, its flags, and what vendors and applications let travel along."""

    trace_id: str
    span_id: str
    flags: str = "01"
    state: str = ""
    baggage: str = ""

    @property
    def traceparent(self) -> str:
        """Spell the span as the header has it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def child(self, event_id: str) -> Trace:
        """Return the span of the event `event_id` in the same trace."""
        return Trace(self.trace_id, _span(event_id), self.flags, self.state, self.baggage)


def parse(traceparent: str, state: str = "", baggage: str = "") -> Trace | None:
    """Read a `traceparent`; None where it is absent or malformed (all-zero ids and capitals are, by section 3.2.2).

    Of the flags only `sampled` is ours to hand on; the others are set to zero (section 3.2.2.5).
    """
    match = _TRACEPARENT.fullmatch(traceparent.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and more):
        return None  # only a later version may go on after its flags
    return Trace(trace_id, span_id, "01" if int(flags, 16) & 1 else "00", state, baggage)


def root(job_id: str, baggage: str = "") -> Trace:
    """Begin a trace for a job whose sender sent none. Baggage is a header of its own and may come without one."""
    return Trace(hashlib.sha256(job_id.encode()).hexdigest()[:32], _span(job_id), baggage=baggage)


def _span(event_id: str) -> str:
    return hashlib.sha256(b"span" + event_id.encode()).hexdigest()[:16]
