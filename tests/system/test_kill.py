"""kill -9 of any process, while requests flow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline.core.payloads import Document, Request
from pipeline.devkit import samples
from pipeline.devkit.kafka import Broker
from pipeline.devkit.simulator import Latency, SimulatorConfig
from tests.system.site import Site, site, until

pytestmark = [pytest.mark.kafka, pytest.mark.system, pytest.mark.heavy]

GROUPS: tuple[tuple[str, ...], ...] = (
    ("preprocess",),
    ("retrieve", "index"),
    ("infer",),
    ("postprocess",),
    ("notify",),
)


async def _submit(place: Site, count: int) -> None:
    async with place.desk() as desk:
        for document in samples.documents():
            await desk.document(Document(**document.model_dump()))
        await place.idle("index")
        asked = samples.requests()
        for number in range(count):
            sample = asked[number % len(asked)]
            await desk.request(
                Request(
                    type=sample.type, input=sample.input, id=f"r{number}", tenant=sample.tenant, key=f"k{number % 40}"
                )
            )


@pytest.mark.within(240)
async def test_every_request_is_delivered_though_every_process_is_killed_once(kafka: Broker, tmp_path: Path) -> None:
    """Each process dies by kill -9 while 200 requests flow; all are delivered, repeats only under their webhook-id."""
    slow = SimulatorConfig(latency=Latency(median=0.3, sigma=0.5))
    async with site(kafka, tmp_path, slow, PIPELINE_INFER_CONCURRENCY="16") as place:
        await place.miss_soon(*(stage for stages in GROUPS for stage in stages))
        await asyncio.gather(*(place.start(*stages) for stages in GROUPS))
        await _submit(place, 200)
        for number, stages in enumerate(GROUPS, start=1):
            goal = 20 * number
            await until(lambda goal=goal: len(place.receiver.accepted) >= goal, f"{goal} webhooks")  # type: ignore[misc]  # the default binds the loop's value
            name = "+".join(stages)
            await place.stages[name].process.kill()
            await place.start(*stages)
        await until(lambda: len({one.webhook_id for one in place.receiver.accepted}) >= 200, "200 webhooks", 90)
        await place.idle("notify", "postprocess", "infer")

        bodies = [one.body for one in place.receiver.accepted]
        assert all(one.verified for one in place.receiver.received)
        assert {body["type"] for body in bodies} == {"job.completed"}
        # One webhook-id a job: a repeat comes under the id it had.
        assert len({body["data"]["job_id"] for body in bodies}) == 200
        assert len({one.webhook_id for one in place.receiver.accepted}) == 200
        async with place.desk() as desk:
            assert await desk.dead() == 0
