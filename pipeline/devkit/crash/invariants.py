"""What must hold when the pipeline has come to rest after all faults. The ledger keeps the first that does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pipeline.core.payloads import Failure
from pipeline.core.ports import Codec, WebhookMessage
from pipeline.core.stage import Stage
from pipeline.devkit.crash.ledger import Ledger, Written
from pipeline.devkit.crash.outside import Call
from pipeline.devkit.crash.script import Asked

VISIBLE = 1.2
"""Seconds after which a record that stands in the log has been read by all who follow it, in the simulated network."""

Asks = Mapping[str, Asked]
"""What was asked, by job id."""


async def ends(ledger: Ledger, codec: Codec, asks: Asks) -> None:
    """Every job has ended once, as its script says: by a result, by a failure, or by a dead letter that is told of."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for made in ledger.of(ledger.chart.name("results")):
        found[made.job].add(("result", made.id))
    for made in ledger.of(ledger.chart.name("failures")):
        failure = await codec.decode("failures", Failure, made.record.value or b"")
        found[made.job].add(("dead" if failure.recoverable else "failure", made.id))
    for job, asked in asks.items():
        ended = sorted(found.pop(job, set()))
        if [end for end, _ in ended] != [asked.end]:
            text = f"a job was to end as a {asked.end}, and ended as {[end for end, _ in ended] or 'nothing'}"
            ledger.break_("every job has one end", text, job)
    for job in found:
        ledger.break_("every job has one end", f"the job {job} ended, and nobody asked for it", job)


def graves(ledger: Ledger, asks: Asks) -> None:
    """Dead letters stand only where the script wants them, and every one of these is there."""
    dead = {made.job for topic in ledger.chart.dead for made in ledger.of(topic)}
    wanted = {job for job, asked in asks.items() if asked.end == "dead"}
    for job in sorted(dead - wanted):
        ledger.break_("dead letters only where due", f"the job {job} has a dead letter", job)
    for job in sorted(wanted - dead):
        ledger.break_("dead letters only where due", f"the job {job} has no dead letter", job)


def posts(ledger: Ledger, messages: Iterable[WebhookMessage], asks: Asks) -> None:
    """Each job is told of under one webhook id."""
    jobs = {made.id: made.job for noun in ("results", "failures") for made in ledger.of(ledger.chart.name(noun))}
    told: dict[str, set[str]] = defaultdict(set)
    for message in messages:
        told[jobs.get(message.id, "")].add(message.id)
    for job in asks:
        if len(told[job]) != 1:
            ledger.break_("one webhook id for each job", f"the job {job} was told of under {sorted(told[job])}", job)


def order(ledger: Ledger) -> None:
    """First occurrences of a key's outputs stand as their sources do, but for those that went through a tier."""
    for stage in ledger.chart.stages.values():
        if stage.order == "key":
            for topic in ledger.chart.outputs(stage.name):
                _order(ledger, stage, topic)


def _order(ledger: Ledger, stage: Stage, topic: str) -> None:
    last: dict[tuple[str, int, bytes], Written] = {}
    seen: set[str] = set()
    for made in ledger.of(topic):
        source = ledger.at(made.origin) if made.origin else None
        if made.id in seen or source is None or source.id in ledger.copied:
            continue
        seen.add(made.id)
        source = _first(ledger, source)
        key = source.record.key
        if key is None:
            continue
        line = (source.position.topic, source.position.partition, key)
        before = last.get(line)
        if before is not None and before.position.offset > source.position.offset:
            text = f"{stage.name} wrote {made.position}, of {source.position}, after what came of {before.position}"
            ledger.break_("order per key", text, made.job)
        last[line] = source


def _first(ledger: Ledger, source: Written) -> Written:
    """Of several writings of one event the first has the place."""
    return ledger.values.get((source.record.topic, source.id), source)


def calls(ledger: Ledger, made: Sequence[Call], disturbances: Sequence[tuple[float, str]]) -> None:
    """No call of a costly stage starts once its answer is there to be read, but by a process that was troubled since.

    That leaves calls cut by a crash before their answer was written, and those that overlap around a stalled owner. It
    holds for an event that stands at several places, too: a run writes less than is read back for repetitions.
    """
    for call in made:
        answer = ledger.outputs.get(call.event)
        if answer is None or answer.at + VISIBLE > call.began:
            continue
        if not any(answer.at <= at <= call.began and by == call.by for at, by in disturbances):
            text = f"{call.by} asked the model again {call.began - answer.at:.3f} s after {answer.position} was written"
            ledger.break_("nothing is paid for twice", text, call.event)
