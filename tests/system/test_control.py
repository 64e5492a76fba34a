"""Pauses and cancellations, given by the command line, heard by real processes on the real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.payloads import Document, Request
from pipeline.devkit import samples
from pipeline.devkit.kafka import Broker
from pipeline.devkit.simulator_faults import Fault, FaultKind
from tests.system.site import Site, site, until

pytestmark = [pytest.mark.kafka, pytest.mark.system]

STAGES = ("preprocess", "retrieve", "infer", "postprocess", "notify", "index")


def told(place: Site, job: str) -> list[tuple[str, str]]:
    """What the webhook's receiver was told of a job: the type of the message, and the failure's code."""
    bodies = [one.body for one in place.receiver.accepted if one.body["data"]["job_id"] == job]
    return [(body["type"], body["data"].get("code", "")) for body in bodies]


@pytest.mark.within(120)
async def test_work_is_paused_resumed_and_cancelled_by_hand(kafka: Broker, tmp_path: Path) -> None:
    """Paused before the stages start, `infer` makes no call until it is resumed; a job that runs and one that is queued
    are cancelled, and both owners hear of it. `explain` tells of the pause when it is over."""
    async with site(kafka, tmp_path, PIPELINE_INFER_CONCURRENCY="1") as place, place.desk() as desk:
        await place.command("pause", "--stage", "infer", "--reason", "a test", "--operator", "ann")
        stages = await place.start(*STAGES)
        for document in samples.documents():
            await desk.document(Document(**document.model_dump()))
        await place.idle("index")
        sample = samples.requests()[0]
        asked = Request(type=sample.type, input=sample.input, tenant=sample.tenant)

        first = await desk.request(asked)
        await place.idle("preprocess", "retrieve")
        assert await desk.lag("infer") == 1
        assert not place.simulator.journal.events
        assert "paused by hand (stage infer: paused by ann: a test)" in (await stages.probe("/readyz") or "")
        assert json.loads(await place.command("control", "--json"))["stage"] == "infer"
        await place.command("resume", "--stage", "infer")
        await until(lambda: told(place, first) == [("job.completed", "")], "the first answer")
        (story,) = json.loads(await place.command("explain", first, "--json"))["jobs"]
        (paused,) = [one for one in story["moments"] if one["what"] == "paused"]
        assert paused["stage"] == "infer"
        assert "stage infer since 20" in paused["text"]
        assert "by ann (a test); the job waited for it for up to" in paused["text"]

        # Longer than all that follows may take: only the cancellation ends it.
        place.simulator.faults.add(Fault(kind=FaultKind.SLOW, seconds=100.0))
        running = await desk.request(asked)
        await until(lambda: place.simulator.journal.in_flight == 1, "a call in flight")
        queued = await desk.request(asked)
        await place.idle("retrieve")
        # The queued one first: each cancellation takes effect by itself, and a slot that is free is taken at once.
        await place.command("cancel", queued, running, first)
        for job in (running, queued):
            await until(lambda job=job: told(place, job) == [("job.failed", "cancelled")], f"the end of {job}")  # type: ignore[misc]  # the default binds the loop's value
        await place.idle("infer", "postprocess", "notify")
        assert told(place, first) == [("job.completed", "")]
        # The first job's call and the running one's: the queued one made none.
        starts = [one for one in place.simulator.journal.events if one.what == "start"]
        assert len(starts) == 2
        assert await desk.dead() == 0
