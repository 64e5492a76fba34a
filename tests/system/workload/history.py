"""What was seen of one variant: the records on its topics, and where its group stood from time to time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from pipeline.core.payloads import Failure
from pipeline.core.record import Commit, Partition, Position, Record
from pipeline.runtime.plan import Plan
from tests.system.workload.notes import Note
from tests.system.workload.variants import Variant


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a group stood at one moment, and where its results ended a moment later. `at` is in seconds."""

    at: float
    committed: Mapping[Partition, Commit]
    ends: Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class History:
    """All there is to judge one variant by.

    `records` are those of all its topics, aborted ones too; `visible` are the positions that a read_committed reader
    sees. `acknowledged` names the notes that the broker has acknowledged, None where the source is a variant's output.
    `lags` were looked at one after the other once everything had healed.
    """

    variant: Variant
    plan: Plan
    records: Sequence[Record]
    visible: frozenset[Position]
    acknowledged: frozenset[str] | None
    samples: Sequence[Sample] = ()
    lags: Sequence[Mapping[Partition, int]] = ()

    @property
    def source(self) -> str:
        """The topic that the stage reads."""
        return next(iter(self.plan.sources))

    @property
    def output(self) -> str:
        """The topic that the stage writes to."""
        return self.plan.output_topic(None)


@dataclass(slots=True)
class Fate:
    """What became of one note. All lists are in the order of their partitions, and without what was aborted."""

    name: str
    inputs: list[Record] = field(default_factory=list)
    outputs: list[Record] = field(default_factory=list)
    copies: list[Record] = field(default_factory=list)
    dead: list[Record] = field(default_factory=list)
    failures: list[tuple[Record, Failure]] = field(default_factory=list)

    @property
    def results(self) -> Iterator[Record]:
        """Everything that settles the note, copies included."""
        yield from (*self.outputs, *self.copies, *self.dead, *(record for record, _ in self.failures))

    @property
    def note(self) -> Note:
        """The note as it was read from the source."""
        return Note.model_validate_json(self.inputs[0].value or b"")


@dataclass(frozen=True, slots=True)
class Fates:
    """The fate of every note by name, and the records that nobody can read."""

    of: Mapping[str, Fate]
    garbled: Sequence[Record]


def fates(history: History) -> Fates:
    """Sort the records of a history by the notes that they are about."""
    found: dict[str, Fate] = {}
    garbled: list[Record] = []
    for record in sorted(history.records, key=lambda record: record.position):
        if record.position in history.visible:
            try:
                _sort(history, record, found)
            except (ValidationError, KeyError):
                garbled.append(record)
    return Fates(found, garbled)


def name_in(history: History, record: Record) -> str | None:
    """Read which note a record of the history is about; None where nobody can tell, or it is another stage's."""
    try:
        return _name(history, _read(history, record))
    except (ValidationError, KeyError):
        return None


def _sort(history: History, record: Record, found: dict[str, Fate]) -> None:
    payload = _read(history, record)
    name = _name(history, payload)
    if name is None:
        return
    fate = found.setdefault(name, Fate(name))
    if isinstance(payload, Failure):
        fate.failures.append((record, payload))
    elif record.topic == history.source:
        fate.inputs.append(record)
    elif record.topic == history.output:
        fate.outputs.append(record)
    elif record.topic in history.plan.tiers:
        fate.copies.append(record)
    else:
        fate.dead.append(record)


def _read(history: History, record: Record) -> Note | Failure:
    kind = Failure if record.topic == history.plan.failures else Note
    return kind.model_validate_json(record.value or b"")


def _name(history: History, payload: Note | Failure) -> str | None:
    if isinstance(payload, Note):
        return payload.name
    return payload.metadata["name"] if payload.stage == history.variant.name else None
