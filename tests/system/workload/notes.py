"""What the workload writes, what its handler does with each note, and what must become of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.core.errors import Defer, Fail, Reject, Retry
from pipeline.core.event import Event
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job, job_id
from pipeline.core.payloads import JobPayload, Payload
from pipeline.core.record import Header, Outgoing, Position
from pipeline.core.stage import Context
from pipeline.core.trace import root

P = TypeVar("P", bound=Payload)

Script = Literal["plain", "retry", "error", "defer", "tier", "fail", "reject", "poison"]
"""What the handler does with a note: answers at once; or first asks for a retry, raises something unknown, defers for a
moment, asks for a retry after a tier's delay; or fails it, rejects it, raises each time."""

End = Literal["output", "failure", "dead letter"]

WEIGHTS: dict[Script, float] = {
    "plain": 88,
    "retry": 3,
    "error": 3,
    "defer": 3,
    "tier": 1.2,
    "fail": 1,
    "reject": 0.4,
    "poison": 0.4,
}
MILLIS = (0, 5, 20, 50, 150)
"""How long the handler may take: long enough that a blow finds some at work."""
DELAYS = (0.2, 0.3)
"""The stages' retry policy, in seconds: short enough to be waited for in place."""
TIER_SECONDS = 10.0
DEFER_SECONDS = 0.3

CARRIED: Header = ("workload", b"travels along")
"""A header that the pipeline does not know; children carry it."""
TENANT = "acme"


class Note(JobPayload):
    """What the topics carry. `name` is unique; `millis` is how long the handler takes; `passed` counts the stages."""

    name: str
    script: Script
    millis: int
    passed: int = 0


def end_of(script: Script) -> End:
    """Say which end a note must come to."""
    if script == "fail":
        return "failure"
    return "dead letter" if script in ("reject", "poison") else "output"


def answer(note: Note) -> Note:
    """What a stage makes of a note: a function of the note alone, so that a repeat is equal."""
    return note.model_copy(update={"passed": note.passed + 1})


class NoteCodec:
    """Payloads as JSON."""

    async def decode(self, noun: str, payload: type[P], value: bytes) -> P:
        """Read JSON."""
        try:
            return payload.model_validate_json(value)
        except ValueError:
            raise Reject(f"cannot decode the value as {noun}", code="undecodable") from None

    async def encode(self, noun: str, payload: Payload) -> bytes:
        """Write JSON."""
        return payload.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class Act:
    """The handler: does what the note says. `put_off` is the retry that the script `tier` asks for, in seconds."""

    put_off: float = TIER_SECONDS

    async def __call__(self, event: Event[Note], ctx: Context) -> Sequence[Note]:
        """Take the note's time, then answer it or raise."""
        note = event.payload
        await asyncio.sleep(note.millis / 1000)
        trouble = _trouble(note.script, event.tries, ctx.now(), self.put_off)
        if trouble is not None:
            raise trouble
        return (answer(note),)


def _trouble(script: Script, tries: Tries, now: float, put_off: float) -> Exception | None:
    """Say what the handler raises after `tries`; None where it answers."""
    each_time: Mapping[Script, Exception] = {
        "fail": Fail("this note fails", code="scripted"),
        "reject": Reject("this note is rejected", code="scripted"),
        "poison": RuntimeError("this note breaks its handler"),
    }
    at_first: Mapping[Script, Exception] = {
        "error": RuntimeError("this note breaks its handler once"),
        "retry": Retry("not at the first attempt", code="scripted"),
        "tier": Retry("not at the first attempt, nor soon", after=put_off, code="scripted"),
        "defer": Defer("not at once", until=now + DEFER_SECONDS, code="scripted"),
    }
    tried = bool(tries.attempts or tries.deferrals)
    return each_time.get(script) or (None if tried else at_first.get(script))


@dataclass(frozen=True, slots=True)
class Author:
    """Makes the notes of one source topic: `keys` keys on each of `partitions` partitions."""

    topic: str
    noun: str
    partitions: int
    keys: int

    def note(self, number: int, chance: random.Random) -> Note:
        """Make note `number`; its name says where it belongs and which of its key it is."""
        spread = self.partitions * self.keys
        place, sequence = number % spread, number // spread
        name = f"p{place % self.partitions}-k{place // self.partitions}-{sequence:06d}"
        script = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        millis = chance.choice(MILLIS)
        return Note(name=name, script=script, millis=millis, metadata={"name": name})

    def record(self, note: Note, now: float) -> Outgoing:
        """Make the record of a note, with headers as our own stages write them."""
        partition, key = place_of(note.name)
        name = job_id(TENANT, "workload", f"{self.topic}/{note.name}")
        job = Job(id=name, tenant=TENANT, type="note", accepted_at_ms=int(now * 1000), hops=1, conversation=key)
        origin = Origin(Position("before.the.workload", partition, sequence_of(note.name)), int(now * 1000))
        event = Event(name, job, note, key.encode(), root(name), origin, carried=(CARRIED,))
        value = note.model_dump_json().encode()
        return Outgoing(self.topic, event.key, value, event.headers(self.noun, now), partition)


def place_of(name: str) -> tuple[int, str]:
    """Read a note's name: its partition, and its key."""
    partition, key, _ = name.split("-")
    return int(partition[1:]), f"{partition}-{key}"


def sequence_of(name: str) -> int:
    """Read a note's name: its number among those of its key."""
    return int(name.rpartition("-")[2])
