"""Forged histories for the checker's own tests: right as long as nobody spoils them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.deadletter import Grave, copy_headers, dead_headers
from pipeline.core.event import Event, receive
from pipeline.core.headers import Origin, Tries
from pipeline.core.offset_map import Progress, spell
from pipeline.core.payloads import Failure, Payload
from pipeline.core.record import Commit, Headers, Outgoing, Partition, Record
from pipeline.core.retry import TIERS
from tests.system.workload.checker import Violation, check
from tests.system.workload.history import History, Sample
from tests.system.workload.notes import TIER_SECONDS, Author, Note, Script, answer, end_of
from tests.system.workload.variants import NOTES, Variant

NOW = 1_800_000_000.0
PREFIX = "t"


class Forge:
    """Builds the log of one variant record by record. Each method appends one record and returns it."""

    def __init__(self, variant: Variant | None = None) -> None:
        self.variant = variant or Variant("work")
        self.plan = self.variant.plan(PREFIX)
        self.author = Author(names.topic(PREFIX, NOTES), NOTES, partitions=2, keys=1)
        self.records: list[Record] = []
        self.aborted: list[Record] = []
        self.acknowledged: set[str] = set()
        self.samples: list[Sample] = []
        self.lags: list[dict[Partition, int]] = [{Partition(self.author.topic, 0): 0}]
        self._offsets: dict[tuple[str, int], int] = {}

    # -------------------------------------------------------------- write

    def note(self, name: str, script: Script = "plain") -> Record:
        """Append an input, acknowledged."""
        note = Note(name=name, script=script, millis=0, metadata={"name": name})
        self.acknowledged.add(name)
        return self.put(self.author.record(note, NOW))

    def output(self, origin: Record, *, at: float = NOW) -> Record:
        """Append the output of an input."""
        event = self._event(origin)
        child = event.derive(answer(event.payload), self.variant.name)
        return self._child(child, self.variant.name, self.plan.output_topic(None), origin, at)

    def failure(self, origin: Record, *, dead: bool = False) -> Record:
        """Append the failure event of an input."""
        event = self._event(origin)
        failure = Failure(
            metadata=event.payload.metadata,
            stage=self.variant.name,
            code="scripted",
            reason="as told",
            recoverable=dead,
            failed_at_ms=0,
        )
        child = event.derive(failure, f"{self.variant.name}.{'dead' if dead else 'failure'}")
        return self._child(child, "failures", self.plan.failures, origin, NOW)

    def copy(self, origin: Record) -> Record:
        """Append a copy of an input to the smallest tier."""
        headers = copy_headers(origin, _origin(origin), Tries(1), now=NOW, not_before=NOW + TIER_SECONDS)
        return self._copy(origin, self.plan.retry_topic(TIERS[0]), headers)

    def dead(self, origin: Record) -> Record:
        """Append the dead letter of an input."""
        grave = Grave(self.variant.name, self.plan.group, "scripted", "Reject", "as told", "1", failed_at=NOW)
        return self._copy(origin, self.plan.dead_letters, dead_headers(origin, _origin(origin), Tries(3), grave))

    def right(self, name: str, script: Script = "plain") -> Record:
        """Append an input and the end that it must come to; returns the input."""
        origin = self.note(name, script)
        if script == "tier":
            self.copy(origin)
        match end_of(script):
            case "output":
                self.output(origin, at=NOW + (TIER_SECONDS if script == "tier" else 0.0))
            case "failure":
                self.failure(origin)
            case _:
                self.dead(origin)
                self.failure(origin, dead=True)
        return origin

    def put(self, record: Outgoing, at: float = NOW) -> Record:
        """Append any record."""
        where = (record.topic, record.partition or 0)
        offset = self._offsets.get(where, 0)
        self._offsets[where] = offset + 1
        made = Record(*where, offset, record.key, record.value, record.headers, int(at * 1000))
        self.records.append(made)
        return made

    # -------------------------------------------------------------- spoil

    def spoil(self, record: Record, **changes: object) -> None:
        """Replace a record by one that differs."""
        self.records[self.records.index(record)] = replace(record, **changes)  # type: ignore[arg-type]  # replace checks the names

    def abort(self, record: Record) -> None:
        """Hide a record from read_committed readers."""
        self.aborted.append(record)

    def sample(self, committed: int, ends: int, *settled: range) -> None:
        """Look at the group: it stands at `committed`, `settled` beyond it, when the output topic ends at `ends`."""
        stand = {Partition(self.author.topic, 0): Commit(committed, spell(committed, Progress(settled)))}
        self.samples.append(Sample(1.0, stand, {Partition(self.plan.output_topic(None), 0): ends}))

    # -------------------------------------------------------------- judge

    def history(self) -> History:
        """Make the history of what was written."""
        hidden = {record.position for record in self.aborted}
        return History(
            self.variant,
            self.plan,
            self.records,
            frozenset(record.position for record in self.records) - hidden,
            frozenset(self.acknowledged),
            self.samples,
            self.lags,
        )

    def found(self) -> Sequence[Violation]:
        """Check what was written."""
        return check(self.history())

    def kinds(self) -> list[tuple[str, str | None]]:
        """Check what was written; returns the kinds of what is wrong, and by which note."""
        return [(one.kind, one.name) for one in self.found()]

    # -------------------------------------------------------------- inside

    def _event(self, origin: Record) -> Event[Note]:
        note = Note.model_validate_json(origin.value or b"")
        return receive(origin, note, open_topic=False, copy=False, now=NOW)

    def _child(self, child: Event[Payload], noun: str, topic: str, origin: Record, at: float) -> Record:
        value = child.payload.model_dump_json().encode()
        return self.put(Outgoing(topic, child.key, value, child.headers(noun, at), origin.partition), at)

    def _copy(self, origin: Record, topic: str, headers: Headers) -> Record:
        return self.put(Outgoing(topic, origin.key, origin.value, headers, origin.partition))


def _origin(record: Record) -> Origin:
    return Origin(record.position, record.timestamp_ms)


def without(record: Record, name: str) -> Headers:
    """Drop a header."""
    return h.without(record.headers, lambda other: other == name)


def having(record: Record, name: str, text: str) -> Headers:
    """Change a header."""
    return (*without(record, name), (name, text.encode()))
