"""The ledger: every record written and every offset committed, judged as it happens. Pure but for the time passed in.

A record is *answered* once anything stands in the log that came of it: an output, a failure event, a copy in a tier or
in the dead letters. Which record an answer is for stands in its headers: the position of the original it goes back to.
As each topic has one stage that reads it, that position names the stage as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.core import headers as h
from pipeline.core.offset_map import Unreadable, read
from pipeline.core.record import Commit, Outgoing, Partition, Position
from pipeline.devkit.clock import EPOCH
from pipeline.devkit.crash.chart import Map, Read
from pipeline.devkit.crash.ends import Ends
from pipeline.devkit.crash.written import Written, headers


class Broken(Exception):
    """An invariant does not hold. `rule` names it; `about` are the job and the partition concerned, as far as known."""

    def __init__(self, rule: str, text: str, about: frozenset[str] = frozenset()) -> None:
        """Keep what happened."""
        super().__init__(text)
        self.rule = rule
        self.text = text
        self.about = about


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the history. `about` is a job's id or a partition; empty concerns all."""

    at: float
    who: str
    text: str
    about: str = ""


@dataclass(slots=True)
class _Reached:
    offset: int = 0
    beyond: set[int] = field(default_factory=set)


class Ledger:
    """Books what is written and committed, and raises nothing: `broken` is the first invariant that did not hold."""

    def __init__(self, chart: Map) -> None:
        """Begin empty."""
        self.chart = chart
        self.broken: Broken | None = None
        self.history: list[Line] = []
        self.logs: dict[Partition, list[Written | None]] = {}
        self.copied: set[str] = set()
        self.repeated: set[str] = set()
        self.cancelled: set[str] = set()
        self.ends = Ends(chart, self.cancelled)
        self.values: dict[tuple[str, str], Written] = {}
        self._answered: dict[str, int] = {}
        self._moved: dict[str, int] = {}
        self.outputs: dict[str, Written] = {}
        self.failed: set[str] = set()
        self._jobs: dict[str, str] = {}
        self._numbers: dict[tuple[str, bytes], int] = {}
        self._grown: dict[str, int] = {}
        self._reached: dict[tuple[str, Partition], _Reached] = {}
        self._copies = chart.copies
        self._count = 0
        self._open: dict[object, list[Written]] = {}

    def say(self, at: float, who: str, text: str, about: str = "") -> None:
        """Add a line to the history."""
        self.history.append(Line(at, who, text, about))

    def break_(self, rule: str, text: str, *about: str) -> None:
        """Keep the first invariant that does not hold. `about`: events, jobs and partitions."""
        if self.broken is None:
            self.broken = Broken(rule, text, frozenset(map(self.job, about)))

    def job(self, event: str) -> str:
        """Tell the job of an event; what is no event's id is returned as it is."""
        return self._jobs.get(event, event)

    # -------------------------------------------------------------- written

    def written(
        self, at: float, by: str, record: Outgoing, position: Position, job: str = "", transaction: object = None
    ) -> Written:
        """Book a record that stands in the log from now on. `job` is given where its headers do not tell.

        What is written in a transaction is there from its commit on; until then its place is empty.
        """
        told = headers(record)
        copy = record.topic in self._copies
        origin = told.get(h.ORIGINAL, "").rpartition("/")[0] if copy else told.get(h.SOURCE, "")
        first = self.at(origin) if origin else None
        job = job or told.get(h.CE_SUBJECT) or (first.job if first else "") or str(position)
        root = origin if copy else str(position)
        name, parent = told.get(h.CE_ID) or job, told.get(h.PARENT, "")
        made = Written(self._count, at, by, position, record, origin, root, name, job, parent)
        self._count += 1
        self._jobs[made.id] = job
        log = self.logs.setdefault(Partition(position.topic, position.partition), [])
        text = f"writes {position}" + (f", of {origin}" if origin else "")
        if transaction is None:
            log.append(made)
            self.say(at, by, text, job)
            self._book(made)
        else:
            log.append(None)
            self._open.setdefault(transaction, []).append(made)
            self.say(at, by, f"{text}, in a transaction", job)
        return made

    def ended(self, at: float, transaction: object, *, committed: bool) -> None:
        """Book how a transaction ended: its records are there together, or never were. A marker stands behind them."""
        records = self._open.pop(transaction, [])
        for made in records:
            self.say(at, made.by, f"{'commits' if committed else 'has aborted'} {made.position}", made.job)
            if committed:
                self.logs[_partition(made)][made.position.offset] = made
        for name in dict.fromkeys(map(_partition, records)):
            self.logs[name].append(None)
        for made in records if committed else ():
            self._book(made)

    def _book(self, made: Written) -> None:
        if made.told:
            return
        origin, copy, record = made.origin, made.root == made.origin, made.record
        first = self.at(origin) if origin else None
        if origin:
            self._answered[origin] = made.number
        if first is not None:
            self._keep_partition(first, made)
            again = len(self.ends.again)
            if wrong := self.ends.book(first, made):
                self.break_(*wrong, made.job)
            if len(self.ends.again) > again:
                self.repeated.add(made.job)
            if copy:
                self.copied.add(first.id)
                self._moved[origin] = made.number
                self._keep_bytes(first, made)
        if not copy:
            self._keep_value(made)
            if made.parent and record.topic != self.chart.name("failures"):
                self.outputs.setdefault(made.parent, made)
            elif first is not None and self.ends.fails(first, made):
                self.failed.add(made.parent)

    def answered(self, made: Written) -> bool:
        """Whether anything stands in the log that came of a record."""
        return self._answered.get(made.root, -1) > made.number

    def answer(self, origin: str) -> None:
        """Book that what stands at `origin` has had its effect outside of the log."""
        self._answered[origin] = self._count
        self._count += 1

    def grew(self, at: float, topic: str, count: int) -> None:
        """Book that a topic has more partitions: its keys are elsewhere from now on."""
        self.say(at, "operator", f"{topic} has {count} partitions")
        self._grown[topic] = self._count
        self._numbers = {key: number for key, number in self._numbers.items() if key[0] != topic}

    def rename(self, position: Position, job: str) -> None:
        """Learn the job of a record that could not be told before it was written."""
        log = self.logs[Partition(position.topic, position.partition)]
        known = log[position.offset]
        log[position.offset] = replace(known, id=job, job=job) if known else None

    def at(self, place: str) -> Written | None:
        """Find the record at `topic/partition/offset`; None where none stands, or none that was committed."""
        topic, number, offset = place.rsplit("/", 2)
        log = self.logs.get(Partition(topic, int(number)), ())
        return log[int(offset)] if int(offset) < len(log) else None

    def of(self, topic: str) -> list[Written]:
        """Return all that was written to a topic, in the order of writing."""
        found = [made for name, log in self.logs.items() if name.topic == topic for made in log if made]
        return sorted(found, key=lambda made: made.number)

    def _keep_partition(self, first: Written, made: Written) -> None:
        reader = self.chart.read.get(first.position.topic)
        if reader is None:
            return
        if reader.stage.repartition:
            # Whoever chooses, chooses by the key, and so always the same, until the topic grows.
            if made.number < self._grown.get(made.record.topic, 0):
                return
            key = (made.record.topic, made.record.key or b"")
            if made.record.key and self._numbers.setdefault(key, made.position.partition) != made.position.partition:
                self.break_("partition", f"{made.position} has its key in two partitions of its topic", made.job)
        elif made.position.partition != first.position.partition:
            self.break_(
                "partition", f"{made.position} does not keep the partition number of {first.position}", made.job
            )

    def _keep_bytes(self, first: Written, made: Written) -> None:
        if (made.record.key, made.record.value) != (first.record.key, first.record.value):
            self.break_("copy", f"{made.position} is not the copy of {first.position}, byte for byte", made.job)

    def _keep_value(self, made: Written) -> None:
        """An event that is written again is the same. Failures and deliveries tell when they happened, and differ."""
        topic = made.record.topic
        known = self.values.setdefault((topic, made.id), made)
        if known is not made:
            self.repeated.add(made.job)
        timed = [self.chart.name(noun) for noun in ("failures", "deliveries", "control")]
        if known.record.value != made.record.value and topic not in timed:
            text = f"{made.position} has the id of {known.position} ({made.id}) and says something else"
            self.break_("equal ids, equal values", text, made.job)

    # -------------------------------------------------------------- committed

    def committed(self, at: float, group: str, commits: Mapping[Partition, Commit]) -> None:
        """Judge what a group commits: all that it says is settled must be answered, and stay so."""
        for name, commit in commits.items():
            reader = self.chart.read.get(name.topic)
            log = self.logs.get(name, [])
            if reader is None:
                self.break_("commit", f"{group} commits {name}, which it does not read", str(name))
                continue
            if commit.offset > len(log):
                self.break_("commit", f"{group} commits {name} at {commit.offset}, beyond its end {len(log)}")
                continue
            self._judge(at, name, commit, reader, log)

    def _judge(self, at: float, name: Partition, commit: Commit, reader: Read, log: list[Written | None]) -> None:
        reached = self._reached.setdefault((reader.stage.name, name), _Reached())
        try:
            ranges = read(commit.offset, commit.metadata).settled
        except Unreadable as unreadable:
            self.break_("commit", f"the metadata committed for {name} do not read: {unreadable}")
            return
        beyond = {offset for one in ranges for offset in one}
        place = f"{name.topic}/{name.number}"
        self.say(at, reader.stage.name, f"commits {place} at {commit.offset}" + _and(beyond), place)
        if reader.stage.delivery == "at most once":
            return  # what is taken and not begun is given back
        if commit.offset < reached.offset or not all(one < commit.offset or one in beyond for one in reached.beyond):
            before = f"{reached.offset}{_and(reached.beyond)}"
            text = f"the commit of {place} at {commit.offset}{_and(beyond)} takes back {before}"
            self.break_("commits only grow", text, place)
            return
        for offset in (*range(reached.offset, commit.offset), *sorted(beyond)):
            if offset not in reached.beyond:
                self._judge_one(at, place, offset, log, reader)
        reached.offset, reached.beyond = commit.offset, beyond

    def _judge_one(self, at: float, place: str, offset: int, log: list[Written | None], reader: Read) -> None:
        if offset >= len(log):
            self.break_("commit", f"the offset map of {place} names {offset}, which was never written", place)
        elif (made := log[offset]) is not None:
            self._settled(at, made, reader)
        elif any(str(made.position) == f"{place}/{offset}" for open_ in self._open.values() for made in open_):
            text = f"{place}/{offset} is committed as settled, and the transaction that wrote it is not over"
            self.break_("what is not committed is not read", text, place)

    def _settled(self, at: float, made: Written, reader: Read) -> None:
        known = reader.stage.costly and (made.id in self.outputs or made.id in self.failed)
        if not self.answered(made) and not known:
            text = f"{made.position} is committed as settled, and nothing that came of it stands in the log"
            self.break_("nothing is committed before it is answered", text, made.job, _place(made))
        if made.job in self.cancelled:
            return  # it ends wherever it is, before its time
        if reader.tier is not None and at < made.at + reader.tier.delay - 0.001:
            text = f"{made.position} left its tier after {at - made.at:.3f} s"
            self.break_("tiers are never early", text, made.job, _place(made))
        due = _not_before(made) if reader.tier is not None else 0.0
        if at < due - 0.001 and self._moved.get(made.root, -1) <= made.number:
            text = f"{made.position} was handled by {at:.3f} s, which was not to be before {due:.3f} s"
            self.break_("tiers are never early", text, made.job, _place(made))


def _partition(made: Written) -> Partition:
    return Partition(made.position.topic, made.position.partition)


def _place(made: Written) -> str:
    return f"{made.position.topic}/{made.position.partition}"


def _not_before(made: Written) -> float:
    told = dict(made.record.headers).get(h.NOT_BEFORE)
    return int(told) / 1000 - EPOCH if told else 0.0


def _and(beyond: set[int]) -> str:
    return f" and {sorted(beyond)}" if beyond else ""
