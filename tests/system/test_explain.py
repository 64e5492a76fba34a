"""`pipeline explain` and `pipeline tail`, as a person runs them beside real stages on the real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pipeline.core.payloads import Request
from pipeline.devkit import samples
from pipeline.devkit.kafka import Broker
from tests.system.command import Prepared
from tests.system.site import site, until

pytestmark = [pytest.mark.kafka, pytest.mark.system, pytest.mark.soak]

STAGES = ("preprocess", "retrieve", "infer", "postprocess", "notify")
CHAIN = ["requests", "prompts", "contexts", "completions", "results", "deliveries"]


@pytest.mark.within(120)
async def test_a_job_is_explained_while_it_waits_and_when_it_is_delivered(
    kafka: Broker, ready: Prepared, tmp_path: Path
) -> None:
    """While `infer` is paused the story says so, by whom and since when; afterwards it goes on to the delivery, and is
    found by the webhook's id as well. A live tail has told the same, record by record."""
    async with site(kafka, tmp_path) as place, place.desk() as desk:

        async def command(*arguments: str) -> CompletedProcess[str]:
            variables = {name: text for name, text in place.environment.items() if name.isupper()}
            return await asyncio.to_thread(ready.run, *arguments, folder=place.folder, **variables)

        await command("pause", "--stage", "infer", "--reason", "a test", "--operator", "ann")
        await place.start(*STAGES)
        sample = samples.requests()[0]
        job = await desk.request(Request(type=sample.type, input=sample.input, tenant=sample.tenant))
        await place.idle("preprocess", "retrieve")

        told = await command("explain", job)
        assert told.returncode == 0, told.stderr
        assert f"job {job}: waiting" in told.stdout
        assert "infer has still to settle contexts." in told.stdout
        assert "paused by ann since 20" in told.stdout
        assert "(a test)" in told.stdout
        assert sample.input not in told.stdout

        await command("resume", "--stage", "infer")
        await until(lambda: bool(place.receiver.accepted), "the webhook")
        await place.idle("notify")
        _explained(job, json.loads((await command("explain", job, "--json")).stdout))
        webhook = place.receiver.accepted[0].webhook_id
        found = json.loads((await command("explain", webhook, "--json", "--since", "1h")).stdout)
        assert [story["job"] for story in found["jobs"]] == [job]

        lines: list[dict[str, str]] = []
        for _ in range(5):  # a busy machine may take longer than a tail lasts
            tailed = await command("tail", "--from-start", "--for", "2s", "--job", job[:8], "--json")
            assert tailed.returncode == 0, tailed.stderr
            lines = [json.loads(line) for line in tailed.stdout.splitlines()]
            if len(lines) >= len(CHAIN):
                break
        assert sorted(line["topic"].split(".")[1] for line in lines) == sorted(CHAIN)
        assert {line["job"] for line in lines} == {job}

        unknown = await command("explain", "nobody")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert "nothing is known of nobody" in unknown.stderr


def _explained(job: str, told: Mapping[str, Any]) -> None:
    (story,) = told["jobs"]
    assert (story["job"], story["status"], story["waits"], story["letters"]) == (job, "delivered", [], [])
    assert [moment["topic"].split(".")[1] for moment in story["moments"] if "topic" in moment] == CHAIN
    assert [moment["what"] for moment in story["moments"] if "topic" not in moment] == ["paused"]
    assert story["moments"][-1]["says"]["status"] == 204
    assert story["about"]["cost_usd"] > 0
    assert told["remarks"] == []
