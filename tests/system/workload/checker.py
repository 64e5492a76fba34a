"""The checker: from a history to what is wrong with it. Pure.

Each function looks for breaches of one promise. An input is a note as its stage's source topic has it; a result is
whatever settles it: its output, a copy in a tier, a dead letter, a failure event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core import headers as h
from pipeline.core.job import child_id
from pipeline.core.offset_map import Unreadable, read
from pipeline.core.record import Partition, Record
from tests.system.workload.history import Fate, Fates, History, fates
from tests.system.workload.notes import CARRIED, End, Script, answer, end_of, place_of, sequence_of

JOB_SCOPED = (h.CE_SUBJECT, h.TENANT, h.TYPE, h.RUN, h.ACCEPTED_AT, h.CONVERSATION)
SINGLE = (h.TRACEPARENT, h.CE_ID, h.CE_SUBJECT, h.PARENT, h.SOURCE, h.OUTPUT, CARRIED[0])
NEVER_COPIED: tuple[Script, ...] = ("plain", "fail", "reject")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept: of which kind, in words, and by which note where it is about one.

    `other` is a second note that it is about.
    """

    kind: str
    what: str
    name: str | None = None
    other: str | None = None


def check(history: History) -> list[Violation]:
    """Find everything that is wrong with a history."""
    known = fates(history)
    return [violation for look in _CHECKS for violation in look(history, known)]


# ------------------------------------------------------------------ what went in


def _garbled(_: History, known: Fates) -> Iterator[Violation]:
    for record in known.garbled:
        yield Violation("garbled", f"{record.position} cannot be read")


def _inputs(history: History, known: Fates) -> Iterator[Violation]:
    """Look for acknowledged notes that the source does not have, or has twice as two, and for results of nothing.

    A producer sends again what was acknowledged without an offset, as a broker that was killed may do: the same record.
    """
    for name in sorted(history.acknowledged or ()):
        if name not in known.of or not known.of[name].inputs:
            yield Violation("lost input", f"{name} was acknowledged, but {history.source} does not have it", name)
    for name, fate in known.of.items():
        different = {(record.key, record.value, record.headers) for record in fate.inputs}
        if history.acknowledged is not None and len(different) > 1:
            yield Violation("repeated input", f"{name} stands in {history.source} in {len(different)} ways", name)
        if not fate.inputs and not (history.acknowledged is not None and name in history.acknowledged):
            yield Violation("stranger", f"{name} has results, but {history.source} never had it", name)


# ------------------------------------------------------------------ what became of it


def _judged(known: Fates) -> Iterator[Fate]:
    return (fate for fate in known.of.values() if fate.inputs)


def _ends(history: History, known: Fates) -> Iterator[Violation]:
    """Look for notes without their end, with another, and for copies that nothing called for."""
    for fate in _judged(known):
        wanted, found = end_of(fate.note.script), set(_ends_of(fate))
        may_lose = history.variant.promise == "at most once"
        if wanted not in found and not may_lose:
            yield Violation("lost", f"{fate.name} has no {wanted}", fate.name)
        for other in sorted(found - {wanted}):
            yield Violation("wrong end", f"{fate.name} came to the end '{other}' instead of '{wanted}'", fate.name)
        if fate.copies and (fate.note.script in NEVER_COPIED or history.variant.order == "strict"):
            yield Violation("wrong end", f"{fate.name} was put into a tier, for which it gave no reason", fate.name)
        if wanted == "dead letter" and fate.dead and not fate.failures and not may_lose:
            yield Violation("lost", f"{fate.name} is a dead letter, and its owner does not hear of it", fate.name)


def _ends_of(fate: Fate) -> Iterator[End]:
    if fate.outputs:
        yield "output"
    if fate.dead:
        yield "dead letter"
    if any(not failure.recoverable for _, failure in fate.failures):
        yield "failure"


def _duplicates(history: History, known: Fates) -> Iterator[Violation]:
    """Look for notes that came to their end twice, where the stage promises that none does."""
    if history.variant.promise == "at least once":
        return
    for fate in _judged(known):
        for what, count in (("outputs", fate.outputs), ("dead letters", fate.dead), ("failure events", fate.failures)):
            if len(count) > len(fate.inputs):
                text = f"{fate.name} has {len(count)} {what} for a read_committed reader"
                yield Violation("duplicate", text, fate.name)


def _order(history: History, known: Fates) -> Iterator[Violation]:
    """Look for keys whose outputs, each at its first occurrence, are not in the order of their inputs."""
    for queue in _by_key(known):
        if history.acknowledged is not None:
            written = sorted(queue, key=lambda fate: sequence_of(fate.name))
            yield from _overtaking(written, [fate.inputs[0] for fate in written])
        if history.variant.order != "none":
            strict = history.variant.order == "strict"
            kept = [fate for fate in queue if fate.outputs and (strict or not fate.copies)]
            kept.sort(key=lambda fate: fate.inputs[0].offset)
            yield from _overtaking(kept, [fate.outputs[0] for fate in kept])


def _by_key(known: Fates) -> Iterable[list[Fate]]:
    queues: dict[str, list[Fate]] = defaultdict(list)
    for fate in _judged(known):
        queues[place_of(fate.name)[1]].append(fate)
    return queues.values()


def _overtaking(queue: Sequence[Fate], first: Sequence[Record]) -> Iterator[Violation]:
    """Compare the order that the notes of a key should have with the records that stand for them."""
    ahead = 0
    for number in range(1, len(queue)):
        if first[number].offset < first[ahead].offset:
            text = (
                f"{queue[number].name} comes after {queue[ahead].name}, but stands before it:"
                f" at {first[number].position}, and that at {first[ahead].position}"
            )
            yield Violation("order", text, queue[number].name, queue[ahead].name)
        else:
            ahead = number


def _early(_: History, known: Fates) -> Iterator[Violation]:
    """Look for notes that were answered before the tier's time had passed."""
    for fate in _judged(known):
        if fate.note.script == "tier" and fate.copies and fate.outputs:
            due = min(h.count(_header(copy, h.NOT_BEFORE), h.MAX_TIME) for copy in fate.copies)
            first = min(record.timestamp_ms for record in fate.outputs)
            if first < due:
                yield Violation("early", f"{fate.name} was answered {due - first} ms before its time", fate.name)


# ------------------------------------------------------------------ what it looks like


def _identity(history: History, known: Fates) -> Iterator[Violation]:
    """Look for results whose id, value, key or partition is not the one that follows from their input."""
    for fate in _judged(known):
        origin = fate.inputs[0]
        for record, stage, value in _derived(history, fate):
            wanted = child_id(_header(origin, h.CE_ID), stage, 0, h.count(_header(origin, h.RUN)))
            if (told := _header(record, h.CE_ID)) != wanted:
                text = f"{record.position} has the id {told}, but what follows from {fate.name} is {wanted}"
                yield Violation("another id", text, fate.name)
            if value is not None and record.value != value:
                yield Violation("another value", f"{record.position} does not answer {fate.name}", fate.name)
        for copy in (*fate.copies, *fate.dead):
            if copy.value != origin.value:
                yield Violation("another value", f"{copy.position} is no copy of {origin.position}", fate.name)
        for record in fate.results:
            if record.key != origin.key:
                yield Violation("another key", f"{record.position} has the key {record.key!r}", fate.name)
            if record.partition != origin.partition:
                text = f"{record.position} follows from {origin.position}"
                yield Violation("foreign partition", text, fate.name)


def _derived(history: History, fate: Fate) -> Iterator[tuple[Record, str, bytes | None]]:
    """Go through the children of a note: the record, who derived it, and its value where it is known."""
    stage = history.variant.name
    value = answer(fate.note).model_dump_json().encode()
    for record in fate.outputs:
        yield record, stage, value
    for record, failure in fate.failures:
        yield record, f"{stage}.{'dead' if failure.recoverable else 'failure'}", None


def _headers(history: History, known: Fates) -> Iterator[Violation]:
    """Look for results whose headers do not tell whose they are: job, trace, parent, source."""
    for fate in _judged(known):
        origin = fate.inputs[0]
        for record, _, _ in _derived(history, fate):
            for wrong in _wrong_headers(record, fate, origin):
                yield Violation("headers", f"{record.position}: {wrong}", fate.name)
        originals = {str(one.position): one for one in fate.inputs}
        for copy in (*fate.copies, *fate.dead):
            original = originals.get(_standing(_header(copy, h.ORIGINAL)))
            if original is None:
                yield Violation("headers", f"{copy.position} says it first stood where no input does", fate.name)
            elif missing := sorted({name for name, _ in set(original.headers) - set(copy.headers)}):
                yield Violation("headers", f"{copy.position} lacks {', '.join(missing)}", fate.name)


def _wrong_headers(child: Record, fate: Fate, origin: Record) -> Iterator[str]:
    told = [name for name, _ in child.headers]
    for name in SINGLE:
        if told.count(name) != 1:
            yield f"{name} is there {told.count(name)} times"
    for name in JOB_SCOPED:
        if _header(child, name) != _header(origin, name):
            yield f"{name} is {_header(child, name)!r}, but the input's {_header(origin, name)!r}"
    if _trace(child) != _trace(origin):
        yield f"the trace is {_trace(child)!r}, but the input's {_trace(origin)!r}"
    if _header(child, h.PARENT) != _header(origin, h.CE_ID):
        yield f"the parent is {_header(child, h.PARENT)!r}, but the input is {_header(origin, h.CE_ID)!r}"
    if _header(child, h.SOURCE) not in {str(one.position) for one in fate.inputs}:
        yield f"the source is {_header(child, h.SOURCE)!r}, but the input stands at {origin.position}"
    if h.count(_header(child, h.HOPS)) != h.count(_header(origin, h.HOPS)) + 1:
        yield f"hops is {_header(child, h.HOPS)!r} after {_header(origin, h.HOPS)!r}"
    if CARRIED not in child.headers:
        yield "the header that the pipeline does not know was not carried along"


def _header(record: Record, name: str) -> str:
    return h.texts(record.headers).get(name, "")


def _trace(record: Record) -> str:
    return _header(record, h.TRACEPARENT)[3:35]


def _standing(original: str) -> str:
    return h.unquoted(original).rpartition("/")[0]


# ------------------------------------------------------------------ where the group stood


def _commits(history: History, known: Fates) -> Iterator[Violation]:
    """Look for commits that were ahead of the settlement, or went back.

    What lies below a committed offset, or in the offset map beside it, was settled before it was committed; so its
    result stands before the end that its partition had a moment later. A stage that promises at most once commits
    before it begins, and takes back what it has not begun when its partition leaves.
    """
    early = history.variant.promise == "at most once"
    passed: dict[Partition, int] = {}
    log = _taken(known)
    for sample in history.samples:
        for part, (offset, metadata) in sample.committed.items():
            before = passed.get(part, 0)
            back = [(record, fate) for record, fate in log.get(part, ()) if offset <= record.offset < before]
            if offset < before and not (early and not any(_settled(*one, sample.ends) for one in back)):
                text = f"{part.topic}/{part.number} was committed at {before}, and {sample.at:.1f} s in at {offset}"
                yield Violation("rewound", text)
            try:
                beyond = read(offset, metadata).settled
            except Unreadable as error:
                beyond = ()
                yield Violation("metadata", f"{part.topic}/{part.number}, {sample.at:.1f} s in: {error}")
            if not early:
                told = (range(before, offset), *beyond)
                for record, fate in log.get(part, ()):
                    if any(record.offset in some for some in told) and not _settled(record, fate, sample.ends):
                        text = f"{record.position} had no result when {offset} was committed, {sample.at:.1f} s in"
                        yield Violation("committed unsettled", text, fate.name)
            passed[part] = max(before, offset)


def _taken(known: Fates) -> Mapping[Partition, Sequence[tuple[Record, Fate]]]:
    """List what the stage takes, by partition: inputs, and copies in its tiers."""
    log: dict[Partition, list[tuple[Record, Fate]]] = defaultdict(list)
    for fate in known.of.values():
        for record in (*fate.inputs, *fate.copies):
            log[Partition(record.topic, record.partition)].append((record, fate))
    return log


def _settled(record: Record, fate: Fate, ends: Mapping[Partition, int]) -> bool:
    return any(
        result.position != record.position and result.offset < ends.get(Partition(result.topic, result.partition), 0)
        for result in fate.results
    )


def _lag(history: History, _: Fates) -> Iterator[Violation]:
    """Look for a lag that is left when everything has healed, or comes back."""
    if not history.lags:
        yield Violation("lag", "nobody has looked at the lag")
    for number, lags in enumerate(history.lags, 1):
        left = {part: lag for part, lag in lags.items() if lag}
        if left:
            told = ", ".join(f"{part.topic}/{part.number} by {lag}" for part, lag in sorted(left.items()))
            yield Violation("lag", f"{history.plan.group} is behind at look {number} of {len(history.lags)}: {told}")
            return


_CHECKS: Sequence[Callable[[History, Fates], Iterator[Violation]]] = (
    _garbled,
    _inputs,
    _ends,
    _duplicates,
    _order,
    _early,
    _identity,
    _headers,
    _commits,
    _lag,
)
