"""One run: a plan and a script played on a fresh pipeline in virtual time, and what became of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from pipeline.core import names
from pipeline.core.catalog import Catalog
from pipeline.core.index_ports import Freshness, PassageSearch, PassageStore, Rereads
from pipeline.core.job import job_id, positional_job_id
from pipeline.core.ports import ChatModel, EndpointBook, WebhookSender
from pipeline.core.record import Outgoing, Partition, Record
from pipeline.devkit.clock import Stuck
from pipeline.devkit.crash import invariants, script
from pipeline.devkit.crash.built import Broker, Rehearsal
from pipeline.devkit.crash.chart import chart
from pipeline.devkit.crash.clients import Commits
from pipeline.devkit.crash.faults import COMMANDS, SESSION, Plan
from pipeline.devkit.crash.ledger import Broken, Ledger, Line
from pipeline.devkit.crash.nemesis import Nemesis
from pipeline.devkit.crash.network import Network
from pipeline.devkit.crash.operator import Operator
from pipeline.devkit.crash.outside import Call, Outside
from pipeline.devkit.crash.scheduler import CrashLoop
from pipeline.devkit.crash.script import Asked
from pipeline.devkit.crash.variants import varied
from pipeline.devkit.fake_endpoints import FakeEndpointBook
from pipeline.devkit.fakes import FakeFreshness, FakeRereads

REST = 3_600.0
"""Virtual seconds within which all is quiet once the faults are over; the longest tier is ten minutes."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run came to. `digest` is of all records; `broken` is the first invariant that did not hold."""

    plan: Plan
    broken: Broken | None
    history: Sequence[Line]
    digest: str
    records: int
    calls: Sequence[Call]
    seconds: float


def run(rehearsal: Rehearsal, plan: Plan) -> Ran:
    """Play one plan. Equal plans give equal runs, to the last record."""
    loop = CrashLoop(_chance(plan, "steps"))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(_Play(rehearsal, plan, loop).play())


def _chance(plan: Plan, what: str) -> Random:
    return Random(f"{plan.seed}/{what}")  # noqa: S311  # reproducible on purpose


class _Play:
    """The parts of one run."""

    def __init__(self, rehearsal: Rehearsal, plan: Plan, loop: CrashLoop) -> None:
        self._rehearsal = rehearsal
        self._plan = plan
        self._loop = loop
        self._script = script.draw(plan.seed, plan.until)
        self.ledger = Ledger(chart(varied(rehearsal.stages, plan.variants), rehearsal.prefix))
        self._outside = Outside(self.ledger, _chance(plan, "outside"), loop.wall)
        self._asks: dict[str, Asked] = {}
        self._broker: Broker
        self._operator: Operator

    async def play(self) -> Ran:
        self._broker = broker = await self._rehearsal.broker(self._loop.wall, SESSION)
        network = Network(broker, self.ledger, _chance(self._plan, "network"))
        self._outside.heard = network.ring
        for name in self.ledger.chart.stages:
            group = names.group(self._rehearsal.prefix, name)
            broker.group(group).committed = Commits(name, self.ledger)
            if self._early(name):
                network.early |= set(self.ledger.chart.topics(name))
        self._operator = Operator(self._rehearsal, broker, network, self._script.asked)
        nemesis = Nemesis(self._rehearsal, broker, network, self._operator, self._outside, self._ports())
        joining = frozenset(fault.target for fault in self._plan.faults if fault.kind == "join")
        late = frozenset(range(len(self._plan.processes))) & joining
        nemesis.begin(self._plan.processes, late, self._loop.wall)
        background = [
            asyncio.create_task(nemesis.watch()),
            asyncio.create_task(self._ask(network)),
            asyncio.create_task(self._teach(network)),
            asyncio.create_task(self._afflict(nemesis)),
        ]
        try:
            await self._through(nemesis, network, background)
        except Stuck as stuck:
            self.ledger.break_("it comes to rest", str(stuck))
        finally:
            for task in background:
                task.cancel()
            self._operator.close()
            await asyncio.wait(background)
            await nemesis.bury()
        return self._ran()

    def _ports(self) -> Mapping[type, object]:
        world = self._outside
        return {
            Catalog: script.catalog(),
            ChatModel: world,
            Freshness: FakeFreshness(),
            PassageSearch: world,
            PassageStore: world,
            Rereads: FakeRereads(),
            EndpointBook: FakeEndpointBook(),
            WebhookSender: world,
        }

    # -------------------------------------------------------------- in

    async def _ask(self, network: Network) -> None:
        prefix, codec = self._rehearsal.prefix, self._rehearsal.codec
        for one in self._script.asked:
            await self._until(one.at)
            value = await codec.encode("requests", one.request) if one.request else one.garbage
            record = Outgoing(names.topic(prefix, "requests"), one.key, value)
            job = job_id("default", "", one.request.id or "") if one.request else ""
            for _ in range(one.copies):
                position = network.write(None, record, job).position
                stamp = int(self._loop.wall() * 1000)
                if not job:
                    job = positional_job_id(Record(*position, one.key, value, timestamp_ms=stamp))
                    self.ledger.rename(position, job)
            self._asks[job] = one

    async def _teach(self, network: Network) -> None:
        for at, document in self._script.documents:
            await self._until(at)
            value = await self._rehearsal.codec.encode("documents", document)
            topic = names.topic(self._rehearsal.prefix, "documents")
            record = Outgoing(topic, document.id.encode(), value)
            network.write(None, record, f"{document.id}/{document.version}")

    async def _afflict(self, nemesis: Nemesis) -> None:
        for fault in self._plan.faults:
            await self._until(fault.at)
            if fault.kind in COMMANDS:
                self._operator.act(fault)
            else:
                nemesis.afflict(fault)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._loop.time()))

    # -------------------------------------------------------------- through

    async def _through(self, nemesis: Nemesis, network: Network, background: Sequence[asyncio.Task[None]]) -> None:
        for second in range(1, int(self._plan.until) + 2):
            await self._until(float(second))
            if self.ledger.broken is not None:
                return
        await asyncio.wait(background[1:])
        for task in background[1:]:
            task.result()
        nemesis.heal()
        await self._operator.rest()
        if not await self._rests(nemesis):
            return
        self._in_hand(nemesis)
        lost = invariants.losses(self.ledger, [life.host for life in nemesis.lives])
        invariants.twice(self.ledger, sorted([*(at for at, _ in network.disturbances), *network.moves]))
        asks = invariants.Asks(self._asks, self.ledger.cancelled, lost)
        ends = await invariants.ends(self.ledger, self._rehearsal.codec, asks)
        invariants.graves(self.ledger, asks, ends)
        invariants.posts(self.ledger, self._outside.posts, asks, ends)
        invariants.order(self.ledger)
        invariants.calls(self.ledger, self._outside.calls, network.disturbances)
        self._indexed()
        for life in await nemesis.stop(lambda: 60.0):
            self.ledger.break_("no task is left", f"{life.host.process.name} still has tasks after its end")

    async def _rests(self, nemesis: Nemesis) -> bool:
        """Wait until no group lags; its retries too are read by then, and done where they are committed early."""
        end = self._loop.time() + REST
        lagging: Mapping[str, Mapping[Partition, int]] = {}
        pause = 5.0
        while self._loop.time() < end and self.ledger.broken is None:
            lagging = await self._lag()
            if not lagging and not self._begun(nemesis):
                # Longer than an idle consumer rests: each has looked at what it has in hand once more.
                await asyncio.sleep(30.0)
                lagging = await self._lag()
                if not lagging and not self._begun(nemesis):
                    return True
            await asyncio.sleep(pause)
            pause = min(1.3 * pause, 60.0)
        if self.ledger.broken is None and not lagging:
            return True
        if self.ledger.broken is None:
            text = f"{REST:g} s after the last fault there is still lag: {dict(lagging)}, {list(self._held(nemesis))}"
            place = next((f"{topic}/{number}" for lag in lagging.values() for topic, number in lag), "")
            self.ledger.break_("it comes to rest", text, place)
        return False

    async def _lag(self) -> Mapping[str, Mapping[Partition, int]]:
        lagging: dict[str, Mapping[Partition, int]] = {}
        for stage in self.ledger.chart.stages:
            lag = await self._broker.lag(names.group(self._rehearsal.prefix, stage), self.ledger.chart.topics(stage))
            behind = {name: count for name, count in lag.items() if count}
            if behind:
                lagging[stage] = behind
        return lagging

    def _in_hand(self, nemesis: Nemesis) -> None:
        for who, stage, held in self._held(nemesis):
            self.ledger.break_("nothing is in hand at rest", f"{stage} of {who} has no lag, and yet {held}")

    def _held(self, nemesis: Nemesis) -> Iterator[tuple[str, str, Mapping[str, float]]]:
        for life in nemesis.living:
            for stage, gauges in life.watch.held.items():
                held = {name: count for name, count in gauges.items() if count and name != "partitions"}
                if held:
                    yield life.host.process.name, stage, held

    def _begun(self, nemesis: Nemesis) -> bool:
        """Whether anything is still to come of what is committed already.

        A tier's partition whose head was cancelled stays paused until that would have been due.
        """
        hosts = [life.host for life in nemesis.lives]
        if any(self._early(stage) or held.keys() == {"paused"} for _, stage, held in self._held(nemesis)):
            return True
        return any(True for _ in invariants.unanswered(self.ledger, hosts))

    def _early(self, stage: str) -> bool:
        return self.ledger.chart.stages[stage].delivery == "at most once"

    def _indexed(self) -> None:
        for document in ("one", "two"):
            if self._outside.indexed.get(("s", document)) != 2:
                self.ledger.break_("documents reach the index", f"the index lacks the newest {document!r}")

    def _ran(self) -> Ran:
        digest = hashlib.sha256()
        count = 0
        for topic in sorted({name.topic for name in self.ledger.logs}):
            for made in self.ledger.of(topic):
                count += 1
                digest.update(f"{made.number} {made.at!r} {made.by} {made.record!r}\n".encode())
        return Ran(
            self._plan,
            self.ledger.broken,
            self.ledger.history,
            digest.hexdigest(),
            count,
            self._outside.calls,
            self._loop.time(),
        )
