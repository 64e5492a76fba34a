"""Concurrency far above the partitions, order per key, and partitions that move to a second worker."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
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
from pipeline.devkit.simulator import Call, Fault, FaultKind, Latency, SimulatorConfig
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


@pytest.mark.within(180)
@pytest.mark.alone
@pytest.mark.parametrize("cap,seconds", [(64, 1.0), (300, 3.0)])
async def test_the_cap_or_the_keys_are_in_flight_throughout(
    kafka: Broker, tmp_path: Path, cap: int, seconds: float
) -> None:
    """1,000 requests over 1 partition and 200 keys: min(cap, keys) calls are in flight until less is left, in order."""
    variables = {
        "PIPELINE_PARTITIONS": "1",
        "PIPELINE_INFER_CONCURRENCY": str(cap),
        "PIPELINE_CATALOG": _plain_catalog(tmp_path),
    }
    # Long calls: what is measured is the dispatch, not how many calls a second this machine can make.
    simulated = SimulatorConfig(latency=Latency(median=seconds))
    async with site(kafka, tmp_path, simulated, **variables) as place:
        await _contexts(place)
        await place.start("infer")
        journal = place.simulator.journal
        await until(lambda: len(journal.calls) == REQUESTS and journal.in_flight == 0, "all calls", 90)

        wanted = min(cap, KEYS)
        assert journal.max_in_flight == wanted
        by_key: dict[str, list[Call]] = defaultdict(list)
        for call in sorted(journal.calls, key=lambda call: call.started):
            by_key[_key(call)].append(call)
        assert len(by_key) == KEYS
        for calls in by_key.values():
            assert [_number(call) for call in calls] == sorted(_number(call) for call in calls)
            assert all(before.finished <= after.started for before, after in pairwise(calls))
        # While there is work for all slots, a slot that becomes free is taken again: between the first moment of
        # full load and the last start, the area under the curve is that of a full window.
        assert _fullness(journal.calls, wanted) >= 0.9


def _fullness(calls: Sequence[Call], wanted: int) -> float:
    """Share of `wanted` slots that were busy, from the first time all were until the last call began."""
    steps = sorted([(call.started, 1) for call in calls] + [(call.finished, -1) for call in calls])
    end = max(call.started for call in calls)
    busy, area, begun, last = 0, 0.0, None, 0.0
    for at, change in steps:
        if begun is not None:
            area += busy * (min(at, end) - last)
            last = min(at, end)
        busy += change
        if begun is None and busy >= wanted:
            begun = last = at
        if at >= end:
            break
    assert begun is not None
    return area / (wanted * (end - begun))


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
