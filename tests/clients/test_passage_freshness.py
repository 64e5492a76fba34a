"""Tests of pipeline/clients/passage_freshness.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients import passage_freshness
from pipeline.clients.passage_freshness import AWAY_SECONDS, Foreign, SettledFreshness
from pipeline.core.errors import Defer, Fail, Outcome
from pipeline.core.record import Partition

NOW = 1_800_000_000.0
SOURCE, SHORT, LONG = "p.documents", "p.index.retry.10s", "p.index.retry.1m"
TOPICS = (SOURCE, SHORT, LONG)
PARTITIONS = 2
ORDERS = "app.public.orders"


@dataclass
class Log:
    """Topics, and a stage that settles them. Each log holds the ids of records; what is `applied` is in the index."""

    logs: dict[Partition, list[int]] = field(
        default_factory=lambda: {Partition(topic, n): [] for topic in TOPICS for n in range(PARTITIONS)}
    )
    settled: dict[Partition, set[int]] = field(default_factory=dict)
    frontier: dict[Partition, int] = field(default_factory=dict)
    applied: set[int] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    trouble: Exception | None = None

    def write(self, number: int = 0) -> int:
        """Write a new document; returns its record's id."""
        made = sum(map(len, self.logs.values()))
        self.logs[Partition(SOURCE, number % PARTITIONS)].append(made)
        return made

    def settle(self, place: Partition, offset: int, copy: str = "") -> None:
        """Apply a record, or copy it to a tier; then it is settled, and committed if all before it are."""
        log, done = self.logs[place], self.settled.setdefault(place, set())
        if offset >= len(log) or offset in done:
            return
        if copy:
            self.logs[Partition(copy, place.number)].append(log[offset])
        else:
            self.applied.add(log[offset])
        done.add(offset)
        while self.frontier.get(place, 0) in done:
            self.frontier[place] = self.frontier.get(place, 0) + 1

    def settle_all(self) -> None:
        """Apply whatever is anywhere."""
        for place, log in self.logs.items():
            for offset in range(len(log)):
                self.settle(place, offset)

    async def end_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Look up ends; something may happen before."""
        self.asked.append("ends")
        self.meanwhile()
        wanted = set(topics)
        ends = {place: len(log) for place, log in self.logs.items() if place.topic in wanted}
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble
        return ends

    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Look up commits; something may happen before."""
        assert group == "p.index"
        self.asked.append("committed")
        self.meanwhile()
        return dict(self.frontier)


def freshness(log: Log, foreign: Foreign | None = None) -> SettledFreshness:
    """Make the port on a log."""
    return SettledFreshness(
        log, "p.index", [SOURCE], [SHORT, LONG], foreign or Foreign({"orders": ORDERS}), lambda: NOW
    )


async def test_all_that_was_written_before_has_to_be_settled() -> None:
    """Behind while a record is open, there once it is applied; what is written later is not waited for."""
    log = Log()
    index = freshness(log)
    assert await index.caught_up("handbook", 0, "early")
    log.write(0), log.write(1)
    assert not await index.caught_up("handbook", 1, "me")
    assert await index.caught_up("handbook", 0, "early")
    log.settle(Partition(SOURCE, 0), 0)
    assert not await index.caught_up("handbook", 1, "me")
    log.settle(Partition(SOURCE, 1), 0)
    log.write(0)
    assert await index.caught_up("handbook", 1, "me")
    assert not await index.caught_up("handbook", 1, "another")


async def test_a_record_in_a_tier_is_not_there_yet() -> None:
    """A copy counts as open, in whichever tier, until it is applied."""
    log = Log()
    index, place = freshness(log), Partition(SOURCE, 1)
    log.write(1)
    log.settle(place, 0, SHORT)
    assert not await index.caught_up("handbook", 1, "me")
    log.settle(Partition(SHORT, 1), 0, LONG)
    assert not await index.caught_up("handbook", 1, "me")
    log.settle(Partition(LONG, 1), 0)
    assert await index.caught_up("handbook", 1, "me")


async def test_a_copy_that_is_made_during_the_look_is_seen() -> None:
    """A record that hops from tier to tier between two questions to the broker is not taken for applied."""
    log = Log()
    log.write(0)
    log.settle(Partition(SOURCE, 0), 0, SHORT)
    log.meanwhile = lambda: log.settle(Partition(SHORT, 0), 0, LONG) if log.asked[-1] == "committed" else None
    assert not await freshness(log).caught_up("handbook", 1, "me")
    assert log.applied == set()


Step = tuple[str, int, int, str]
steps = st.lists(
    st.tuples(
        st.sampled_from(TOPICS),
        st.integers(0, PARTITIONS - 1),
        st.integers(0, 4),
        st.sampled_from(["apply", "apply", SHORT, LONG, "write"]),
    ),
    max_size=4,
)


@given(st.lists(st.integers(0, 1), max_size=4), st.lists(steps, max_size=20))
async def test_nobody_is_told_of_what_is_not_there(written: list[int], happening: list[list[Step]]) -> None:
    """Whatever happens while it is looked: once the answer is yes, all that was written before is applied."""
    log, turns = Log(), iter(happening)

    def meanwhile() -> None:
        for topic, number, offset, what in next(turns, []):
            if what == "write":
                log.write(number)
            else:
                log.settle(Partition(topic, number), offset, "" if what == "apply" else what)

    before = {log.write(number) for number in written}
    log.meanwhile = meanwhile
    index = freshness(log)
    for _ in range(6):
        if await index.caught_up("handbook", 1, "me"):
            assert before <= log.applied
    log.meanwhile = lambda: None
    log.settle_all()
    log.settle_all()
    assert await index.caught_up("handbook", 1, "me")


async def test_who_asks_at_once_shares_a_look() -> None:
    """A look that had begun before the question does not count for it; the next one counts for all who wait."""
    log = Log()
    index = freshness(log)
    first = asyncio.create_task(index.caught_up("handbook", 1, "first"))
    while not log.asked:
        await asyncio.sleep(0)
    assert log.asked == ["ends"]
    log.write(0)
    later = [asyncio.create_task(index.caught_up("handbook", 1, f"later {number}")) for number in range(20)]
    assert [await first, *await asyncio.gather(*later)] == [True] + [False] * 20
    assert log.asked == ["ends", "committed", "ends"] * 2


async def test_an_asker_who_was_forgotten_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; who is forgotten waits for more than was needed, never for less."""
    monkeypatch.setattr(passage_freshness, "REMEMBERED", 2)
    log = Log()
    index = freshness(log)
    for asker in ("a", "b", "c"):
        assert await index.caught_up("handbook", 1, asker)
    log.write(0)
    assert [await index.caught_up("handbook", 1, asker) for asker in ("b", "c", "a")] == [True, True, False]


async def test_a_source_that_a_connector_brings_is_refused() -> None:
    """When its changes come to Kafka is not known, so nobody is told that they are there."""
    log = Log()
    with pytest.raises(Fail) as failed:
        await freshness(log).caught_up("orders", 1, "me")
    assert (failed.value.code, log.asked) == ("freshness_unknown", [])


async def test_a_broker_that_does_not_answer_defers() -> None:
    """It is no fault of who asks; the next question is put anew."""
    log = Log(trouble=OSError("no route"))
    index = freshness(log)
    with pytest.raises(Defer) as deferred:
        await index.caught_up("handbook", 1, "me")
    assert deferred.value.until == NOW + AWAY_SECONDS
    assert "OSError no route" in deferred.value.reason
    log.trouble = None
    assert await index.caught_up("handbook", 1, "me")


async def test_a_topic_of_which_nothing_is_known_defers() -> None:
    """A topic without leaders is not taken for one without records."""
    log = Log()
    for number in range(PARTITIONS):
        del log.logs[Partition(LONG, number)]
    with pytest.raises(Defer, match=r"nothing is known of p\.index\.retry\.1m"):
        await freshness(log).caught_up("handbook", 1, "me")


async def test_who_asks_at_once_shares_a_failure() -> None:
    """Nobody waits for more than the look under way and one of its own, whether or not others have given up."""
    log = Log()
    index = freshness(log)
    first = asyncio.create_task(index.caught_up("handbook", 1, "first"))
    while not log.asked:
        await asyncio.sleep(0)
    first.cancel()
    log.trouble = OSError("no route")
    later = [asyncio.create_task(index.caught_up("handbook", 1, f"later {number}")) for number in range(20)]
    ends = await asyncio.gather(first, *later, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] + [Defer] * 20
    assert log.asked == ["ends"] * 2


# ---- sources that a connector brings ---------------------------------------------------------------------------------
@dataclass
class Connector:
    """Brings what is committed to the topic of a table, and confirms it in its slot; of a position, how far that is."""

    log: Log
    commits: list[int] = field(default_factory=list)
    written: int = 0
    confirmed: int = 0
    asked: int = 0
    trouble: Outcome | None = None

    def commit(self) -> int:
        """Commit a row; returns a position of the database's log beyond it."""
        self.commits.append(len(self.commits))
        return len(self.commits) * 10

    def bring(self) -> None:
        """Write the next commit to Kafka."""
        if self.written < len(self.commits):
            self.log.logs[Partition(ORDERS, self.written % PARTITIONS)].append(1_000 + self.written)
            self.written += 1

    def confirm(self) -> None:
        """Tell the slot what was written."""
        self.confirmed = self.written

    async def passed(self) -> int:
        """Say what the slot says."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble
        return self.confirmed * 10


def connected(trouble: Outcome | None = None) -> tuple[Log, Connector, SettledFreshness]:
    """Make a log with the topic of a table, what brings it, and the port on both."""
    log = Log()
    log.logs |= {Partition(ORDERS, number): [] for number in range(PARTITIONS)}
    connector = Connector(log, trouble=trouble)
    return log, connector, freshness(log, Foreign({"orders": ORDERS, "counted": ""}, connector.passed))


async def test_a_commit_is_waited_for_until_it_is_brought_and_indexed() -> None:
    """First the slot has to pass the version, then all that was written by then has to be settled; no other topic."""
    log, connector, index = connected()
    log.write(0)
    version = connector.commit()
    assert not await index.caught_up("orders", version, "me")
    connector.bring()
    assert not await index.caught_up("orders", version, "me")
    connector.confirm()
    assert not await index.caught_up("orders", version, "me")
    log.settle(Partition(ORDERS, 0), 0, SHORT)
    assert not await index.caught_up("orders", version, "me")
    log.settle(Partition(SHORT, 0), 0)
    assert await index.caught_up("orders", version, "me")
    assert not await index.caught_up("handbook", 1, "me")


async def test_each_version_is_waited_for_apart() -> None:
    """Who asks of several sources, or of a later version, does not take what was written before for all of it."""
    log, connector, index = connected()
    assert await index.caught_up("handbook", 0, "me")
    early, late = connector.commit(), connector.commit()
    connector.bring()
    connector.confirm()
    log.settle(Partition(ORDERS, 0), 0)
    assert await index.caught_up("orders", early, "me")
    connector.bring()
    connector.confirm()
    assert await index.caught_up("orders", early, "me")
    assert not await index.caught_up("orders", late, "me")


async def test_what_the_slot_has_passed_is_remembered_and_asked_together() -> None:
    """A log only goes on: an older version costs no question, and those who ask at once share one."""
    _, connector, index = connected()
    connector.commit()
    connector.bring()
    connector.confirm()
    asks = (index.caught_up("orders", 10, f"asker {number}") for number in range(20))
    await asyncio.gather(*asks)
    assert connector.asked <= 2
    connector.trouble = Defer("away", until=NOW + 1, code="source_away")
    await index.caught_up("orders", 7, "another")
    with pytest.raises(Defer, match="away"):
        await index.caught_up("orders", 11, "another")


@pytest.mark.parametrize("source", ["orders", "counted"])
async def test_a_version_that_is_no_position_is_refused(source: str) -> None:
    """A slot that is not there says why; a version of a column cannot be compared with one."""
    log, connector, index = connected(trouble=Fail("no slot", code="freshness_unknown"))
    with pytest.raises(Fail) as failed:
        await index.caught_up(source, 1, "me")
    assert (failed.value.code, log.asked, connector.asked) == ("freshness_unknown", [], int(source == "orders"))


async def test_a_topic_of_a_table_that_is_not_there_yet_holds_up_that_table_alone() -> None:
    """An empty table has none before its first row."""
    log, _, index = connected()
    for number in range(PARTITIONS):
        del log.logs[Partition(ORDERS, number)]
    assert await index.caught_up("handbook", 1, "me")
    with pytest.raises(Defer, match=ORDERS):
        await index.caught_up("orders", 0, "me")


moves = st.lists(st.sampled_from(["commit", "bring", "confirm", "settle", "copy", "ask"]), max_size=40)


@given(moves)
async def test_nobody_is_told_of_a_commit_that_is_not_there(happening: list[str]) -> None:
    """In any order of commits, writes, confirmations and settlements: once the answer is yes, all commits are in."""
    log, connector, index = connected()
    version = 0
    for number, what in enumerate(happening):
        match what:
            case "commit":
                version = connector.commit()
            case "bring":
                connector.bring()
            case "confirm":
                connector.confirm()
            case "settle" | "copy":
                for place in list(log.logs):
                    offset = log.frontier.get(place, 0)
                    log.settle(place, offset, SHORT if what == "copy" and place.topic == ORDERS else "")
            case "ask":
                if await index.caught_up("orders", version, f"asker {number % 3}"):
                    assert {1_000 + one for one in range(version // 10)} <= log.applied
