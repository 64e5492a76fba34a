"""What must hold when the pipeline has come to rest after all faults. The ledger keeps the first that does not."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.payloads import Failure
from pipeline.core.ports import Codec, WebhookMessage
from pipeline.core.record import Position
from pipeline.core.stage import Stage
from pipeline.devkit.crash.ledger import Ledger
from pipeline.devkit.crash.network import Host
from pipeline.devkit.crash.outside import Call
from pipeline.devkit.crash.script import Asked
from pipeline.devkit.crash.written import Written

VISIBLE = 1.2
"""Seconds after which a record that stands in the log has been read by all who follow it, in the simulated network."""

Labelled = Mapping[str, Set[tuple[str, str]]]
"""The ends of each job: what it ended as, and the id of the event that says so."""


@dataclass(frozen=True, slots=True)
class Asks:
    """What was asked, by job id; which jobs were cancelled, and which may have been lost (design section 6.9)."""

    asked: Mapping[str, Asked]
    cancelled: Set[str] = frozenset()
    lost: Set[str] = frozenset()

    def allowed(self, job: str) -> Sequence[Sequence[str]]:
        """Say as what a job may end: each way is all of its ends."""
        asked = self.asked[job]
        ways = [["result", "unheard"] if asked.end == "unheard" else [asked.end]]
        ways += [["deadline"]] if asked.hurries else []
        ways += [["cancelled"]] if job in self.cancelled else []
        return ways


async def ends(ledger: Ledger, codec: Codec, asks: Asks) -> Labelled:
    """Every job has ended once, as its script says: by a result, by a failure, or by a dead letter that is told of.

    Where a record was handled twice, with a reason, what was commanded in between may have given it another end.
    """
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for made in ledger.of(ledger.chart.name("results")):
        found[made.job].add(("result", made.id))
    for made in ledger.of(ledger.chart.name("failures")):
        failure = await codec.decode("failures", Failure, made.record.value or b"")
        found[made.job].add((_label(failure), made.id))
    for job in asks.asked:
        _ended(ledger, job, sorted(label for label, _ in found[job]), asks)
    for job in found.keys() - asks.asked:
        ledger.break_("every job has one end", f"the job {job} ended, and nobody asked for it", job)
    return found


def _label(failure: Failure) -> str:
    if failure.recoverable:
        return "unheard" if failure.stage == "notify" else "dead"
    return failure.code if failure.code in {"cancelled", "deadline"} else "failure"


def _ended(ledger: Ledger, job: str, ended: list[str], asks: Asks) -> None:
    allowed = asks.allowed(job)
    if ended in allowed:
        return
    every = {label for way in allowed for label in way}
    if job in asks.lost and set(ended) <= every:
        return
    if len(allowed) > 1 and job in ledger.repeated and ended and set(ended) <= every:
        return
    text = f"a job was to end as {' or '.join(' and '.join(way) for way in allowed)}, and ended as {ended or 'nothing'}"
    ledger.break_("every job has one end", text, job)


def losses(ledger: Ledger, hosts: Sequence[Host]) -> set[str]:
    """Say which jobs may be lost: a stage of "at most once" had taken a record of theirs in a process that fell.

    Nothing else is lost there: what has come to nothing was in such hands.
    """
    for made in unanswered(ledger, hosts):
        text = f"{made.position} has come to nothing, and no process that had taken it was killed"
        ledger.break_("nothing is lost without a crash", text, made.job)
    return {taken.job for position in _fallen(hosts) if (taken := ledger.at(str(position)))}


def unanswered(ledger: Ledger, hosts: Sequence[Host]) -> Iterator[Written]:
    """Go through the records of which something is still to come, though their offsets may be committed."""
    fallen = _fallen(hosts)
    for topic, read in ledger.chart.read.items():
        for made in ledger.of(topic) if read.stage.delivery == "at most once" else ():
            if made.position not in fallen and not ledger.answered(made):
                yield made


def _fallen(hosts: Sequence[Host]) -> set[Position]:
    return {position for host in hosts if host.fell for position in host.taken}


def twice(ledger: Ledger, troubles: Sequence[float]) -> None:
    """What was written twice has a reason: since its record came, a process was troubled, or partitions moved."""
    for first, made in ledger.ends.again:
        place = bisect_left(troubles, first.at)
        if place == len(troubles) or troubles[place] > made.at:
            text = f"{made.position} is one more end of {first.position}, and nothing has happened meanwhile"
            ledger.break_("nothing is done twice without a reason", text, made.job)


def graves(ledger: Ledger, asks: Asks, ends: Labelled) -> None:
    """Dead letters stand only where a failure event tells of them, and there they do; and all tries were made."""
    dead = {made.job for topic in ledger.chart.dead for made in ledger.of(topic)}
    told = {job for job, ended in ends.items() if not {"dead", "unheard"}.isdisjoint(label for label, _ in ended)}
    for job in sorted((dead ^ told) - asks.lost):
        text = f"the job {job} has {'a' if job in dead else 'no'} dead letter"
        ledger.break_("dead letters only where due", text, job)
    for name, stage in ledger.chart.stages.items():
        for made in ledger.of(names.dead_letter_topic(ledger.chart.prefix, name)):
            asked, tries = asks.asked.get(made.job), made.headers.get(h.ATTEMPTS)
            every = len(stage.retry.delays) + 1
            if asked is not None and asked.exhausts and tries != str(every):
                text = f"{made.position} is dead after {tries} tries, and {name} has {every}"
                ledger.break_("all tries are made", text, made.job)


def posts(ledger: Ledger, messages: Iterable[WebhookMessage], asks: Asks, ends: Labelled) -> None:
    """Each end of a job is told of, under its event's id; but for what no receiver takes."""
    told = {message.id for message in messages}
    for job, asked in asks.asked.items():
        whispered = {"result", "unheard"} if asked.end == "unheard" else {"unheard"}
        wanted = {name for label, name in ends[job] if label not in whispered}
        if not wanted <= told and job not in asks.lost:
            ledger.break_("one webhook id for each job", f"the job {job} was not told of", job)
        told -= wanted
    if told:
        ledger.break_("one webhook id for each job", f"webhooks tell of what is no end of a job: {sorted(told)}")


def order(ledger: Ledger) -> None:
    """First occurrences of a key's outputs stand as their sources do, but for those that went through a tier.

    A record that was failed has its end there: what a worker that stood still makes of it later has no place.
    """
    for stage in ledger.chart.stages.values():
        if stage.order == "key" and stage.delivery != "at most once":
            for topic in ledger.chart.outputs(stage.name):
                _order(ledger, stage, topic)


def _order(ledger: Ledger, stage: Stage, topic: str) -> None:
    last: dict[tuple[str, int, bytes], Written] = {}
    seen: set[str] = set()
    ours = frozenset(ledger.chart.topics(stage.name))
    for made in ledger.of(topic):
        if made.told or (made.origin and made.origin.partition("/")[0] not in ours):
            continue  # two stages may write one topic
        source = ledger.at(made.origin) if made.origin else None
        if made.id in seen or source is None or source.id in ledger.copied or source.id in ledger.failed:
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
    holds for an event that stands at several places, too: a run writes less than is read back for repetitions. Who
    chooses partitions by the key and repeats itself when these have grown puts an event into a second one, where none
    can know of the first: it is paid for in each.
    """
    elsewhere = Counter({event: len(numbers) - 1 for event, numbers in _numbers(ledger).items()})
    for call in made:
        answer = ledger.outputs.get(call.event)
        if answer is None or answer.at + VISIBLE > call.began:
            continue
        if not any(answer.at <= at <= call.began and by == call.by for at, by in disturbances):
            elsewhere[call.event] -= 1
            if elsewhere[call.event] >= 0:
                continue
            text = f"{call.by} asked the model again {call.began - answer.at:.3f} s after {answer.position} was written"
            ledger.break_("nothing is paid for twice", text, call.event)


def _numbers(ledger: Ledger) -> dict[str, set[int]]:
    """In which partitions each event stands, copies left aside."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for log in ledger.logs.values():
        for made in log:
            if made is not None and made.root != made.origin:
                numbers[made.id].add(made.position.partition)
    return numbers
