"""Concurrency far above the partitions, order per key, and partitions that move to a second worker."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from itertools import cycle, pairwise
from pathlib import Path

import pytest
import yaml

from pipeline.core import names
from pipeline.core.event import Event
from pipeline.core.headers import Origin
from pipeline.core.job import Job
from pipeline.core.payloads import Request, RetrievedContext
from pipeline.core.record import Outgoing, Position
from pipeline.core.trace import root
from pipeline.devkit.kafka import Broker
from pipeline.devkit.simulator import Call, Fault, FaultKind, Latency, SimulatorClock, SimulatorConfig
from pipeline.resources import resource
from tests.contracts.broker_bench import write
from tests.system.site import Site, site, until

pytestmark = [pytest.mark.kafka, pytest.mark.system]

REQUESTS, KEYS = 1_000, 200


def _plain_catalog(folder: Path) -> str:
    """Write a catalog with a type that retrieves nothing, so that only the model takes time."""
    catalog = yaml.safe_load(resource("deploy", "catalog.yaml").read_text())
    kind = dict(catalog["types"]["quick_answer"])
    kind["retrieval"] = {"passages": 0}
    catalog["types"]["plain"] = kind
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(catalog))
    return str(path)


def _key(call: Call) -> str:
    return call.asked.question.split()[1]


def _number(call: Call) -> int:
    return int(call.asked.question.split()[3])


async def _queue(place: Site, requests: int, keys: int) -> None:
    """Bring all requests as far as the queue of `infer`, which does not run yet."""
    upstream = await place.start("preprocess", "retrieve")
    async with place.desk() as desk:
        for number in range(requests):
            key = f"k{number % keys}"
            await desk.request(Request(type="plain", input=f"key {key} number {number}", id=f"r{number}", key=key))
    await place.idle("preprocess", "retrieve")
    # SIGTERM: it drains, commits, leaves, and says so by its exit code.
    assert await upstream.process.terminate(20) == 0


async def _contexts(place: Site) -> None:
    """Write what `retrieve` would, all of it before `infer` runs."""
    topic, records = names.topic(place.prefix, "contexts", "interactive"), list[Outgoing]()
    async with place.desk() as desk:
        for number in range(REQUESTS):
            name, key = f"r{number}", f"k{number % KEYS}"
            payload = RetrievedContext(input=f"key {key} number {number}")
            origin = Origin(Position(names.topic(place.prefix, "requests"), 0, number), -1)
            event = Event(name, Job(f"job-{name}", type="plain"), payload, key.encode(), root(name), origin)
            value = await desk.codec.encode("contexts", payload)
            records.append(Outgoing(topic, event.key, value, event.headers("contexts", time.time()), 0))
        assert await write(desk.producer, records) == [None] * REQUESTS


class Gate:
    """Where simulated calls wait until the test lets them go, so that no figure of this test is of this machine."""

    def __init__(self) -> None:
        self._held: deque[asyncio.Future[None]] = deque()

    async def wait(self, _seconds: float) -> None:
        """Stand in for the sleep of a call's latency."""
        self._held.append(turn := asyncio.get_running_loop().create_future())
        await turn

    async def holds(self, count: int, what: str) -> None:
        """Wait until so many calls wait."""
        await until(lambda: len(self._held) == count, what)

    def let_go(self, count: int) -> None:
        """Let those that wait longest be answered."""
        for _ in range(count):
            self._held.popleft().set_result(None)


@pytest.mark.within(180)
@pytest.mark.parametrize("cap", [64, 300])
async def test_the_cap_or_the_keys_are_in_flight_throughout(kafka: Broker, tmp_path: Path, cap: int) -> None:
    """1,000 requests over 1 partition and 200 keys: min(cap, keys) calls are in flight until less is left, in order."""
    variables = {
        "PIPELINE_PARTITIONS": "1",
        "PIPELINE_INFER_CONCURRENCY": str(cap),
        "PIPELINE_CATALOG": _plain_catalog(tmp_path),
    }
    gate, wanted = Gate(), min(cap, KEYS)
    simulated, clock = SimulatorConfig(latency=Latency(median=1.0)), SimulatorClock(sleep=gate.wait)
    async with site(kafka, tmp_path, simulated, clock, **variables) as place:
        await _contexts(place)
        await place.start("infer")
        journal = place.simulator.journal
        # However many are answered at once, as many begin, before one more is answered.
        freed, sizes = 0, cycle([1, 7, wanted // 2, wanted])
        while freed < REQUESTS:
            busy = min(wanted, REQUESTS - freed)
            await gate.holds(busy, f"{busy} calls in flight after {freed}")
            gate.let_go(answered := min(next(sizes), busy))
            freed += answered
        await until(lambda: len(journal.calls) == REQUESTS, "all calls")

        assert journal.max_in_flight == wanted
        by_key: dict[str, list[Call]] = defaultdict(list)
        for call in sorted(journal.calls, key=lambda call: call.started):
            by_key[_key(call)].append(call)
        assert len(by_key) == KEYS
        for calls in by_key.values():
            assert [_number(call) for call in calls] == sorted(_number(call) for call in calls)
            assert all(before.finished <= after.started for before, after in pairwise(calls))


@pytest.mark.within(180)
async def test_a_second_worker_takes_over_partitions_of_a_busy_one(kafka: Broker, tmp_path: Path) -> None:
    """A second infer worker that starts while the first is busy gets partitions and answers; nothing is lost."""
    variables = {"PIPELINE_INFER_CONCURRENCY": "8", "PIPELINE_CATALOG": _plain_catalog(tmp_path)}
    async with site(kafka, tmp_path, None, **variables) as place:
        await _queue(place, 400, 100)
        await place.start("postprocess", "notify")
        place.simulator.faults.add(Fault(kind=FaultKind.SLOW, times=400, seconds=2.0))
        first = await place.start("infer", name="first")
        await until(lambda: place.simulator.journal.in_flight == 8, "a busy first worker")
        second = await place.start("infer", name="second")
        while not await second.metric("pipeline_handlers_running"):
            await asyncio.sleep(0.1)
        place.simulator.faults.clear()
        await until(lambda: len({one.webhook_id for one in place.receiver.accepted}) >= 400, "all answers", 90)

        assert await second.metric("pipeline_partitions_assigned") > 0
        assert await first.metric("pipeline_partitions_assigned") > 0
        assert await second.metric("pipeline_records_settled_total") > 0
        assert await first.metric("pipeline_stage_halted") == 0
        assert {one.body["type"] for one in place.receiver.accepted} == {"job.completed"}
