"""Webhook endpoints in trouble, as a person meets them: the stages as a process, the command line, the real broker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.core import names
from pipeline.core.event import Event
from pipeline.core.headers import Origin
from pipeline.core.job import Job
from pipeline.core.payloads import Result
from pipeline.core.record import Outgoing, Position
from pipeline.core.trace import root
from pipeline.devkit.kafka import Broker
from pipeline.devkit.receiver import HookFailure, Received
from pipeline.ops.publish import write_all
from pipeline.resources import resource
from pipeline.wiring import CLOCK, Desk
from tests.system.command import Prepared
from tests.system.site import Site, site, until

pytestmark = [pytest.mark.kafka, pytest.mark.system]

ENDPOINTS = ("crm", "slow", "ordered", "other")


def catalog(folder: Path) -> Path:
    """Write a catalog with an endpoint of each kind, and a type for each that goes to it."""
    told = yaml.safe_load(resource("deploy", "catalog.yaml").read_text("utf-8"))
    for name in ENDPOINTS:
        told["endpoints"][name] = {
            "url_env": f"{name.upper()}_URL",
            "secret_env": "WEBHOOK_SECRET",
            "ordered": name == "ordered",
        }
        told["types"][name] = told["types"]["quick_answer"] | {"endpoint": name}
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(told), "utf-8")
    return path


async def write(desk: Desk, endpoint: str, *jobs: str, key: str = "") -> None:
    """Write results that are to go to an endpoint, as `postprocess` does; each has its own key unless one is given."""
    records = []
    for job in jobs:
        result = Result(
            answer=job,
            model="m",
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=1,
            cost_usd=0.0,
            latency_ms=1,
        )
        own, origin = (key or job).encode(), Origin(Position("before", 0, 0), 0)
        event = Event(f"{job}-result", Job(job, type=endpoint), result, own, root(job), origin)
        value = await desk.codec.encode("results", result)
        topic = names.topic(desk.prefix, "results")
        records.append(Outgoing(topic, event.key, value, event.headers("results", CLOCK()), 1))
    await write_all(desk.producer, records)


class Person:
    """Whoever gives commands at a site, and reads JSON."""

    def __init__(self, place: Site, ready: Prepared) -> None:
        """Stand at `place`."""
        self._place = place
        self._ready = ready

    async def asks(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        """Give a command, which is to end with `code`."""
        variables = {name: text for name, text in self._place.environment.items() if name.isupper()}
        done = await asyncio.to_thread(self._ready.run, *arguments, "--json", folder=self._place.folder, **variables)
        assert done.returncode == code, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    async def waits(self, number: int, *arguments: str) -> list[dict[str, Any]]:
        """Give a command until it tells of so many things."""
        async with asyncio.timeout(60):
            while len(told := await self.asks(*arguments)) < number:
                await asyncio.sleep(0.1)
        return told


def at(place: Site, hook: str) -> list[Received]:
    """What a hook has accepted."""
    return [one for one in place.receiver.accepted if one.hook == hook]


@pytest.mark.within(120)
async def test_an_endpoint_in_trouble_delays_only_itself_and_loses_nothing(
    kafka: Broker, ready: Prepared, tmp_path: Path
) -> None:
    """One that says it is gone is disabled, its messages wait in the log, and arrive once it is enabled and they are
    sent again, under the ids that they had. Meanwhile one that hangs delays no other, and one that asked for order has
    the messages of a key in order, although the first attempt at the first of them fails."""
    path = catalog(tmp_path)
    variables = {"PIPELINE_CATALOG": str(path), "PIPELINE_DRAIN_SECONDS": "0"}
    urls = {f"{name.upper()}_URL": "http://127.0.0.1:1/" for name in ENDPOINTS}
    async with site(kafka, tmp_path, None, **variables, **urls) as place, place.desk() as desk:
        person = Person(place, ready)
        place.receiver.fail(
            HookFailure(hook="crm", status=410),
            HookFailure(hook="slow", seconds=100.0, times=None),
            HookFailure(hook="ordered", status=500),
        )
        own = {f"{name.upper()}_URL": place.receiver.hook_url(name) for name in ENDPOINTS}
        await place.start("notify", "deliver", **own)
        await write(desk, "slow", *(f"slow-{number}" for number in range(50)))
        await write(desk, "ordered", "first", "second", "third", key="conversation")
        await write(desk, "crm", "gone")
        await write(desk, "other", *(f"other-{number}" for number in range(50)))
        await until(lambda: len(at(place, "other")) == 50, "what is not slow")
        # No more are on their way to it than it wants, and none has arrived.
        assert len(at(place, "slow")) == 16

        listing = ("deliveries", "list", "--outcome", "undeliverable")
        assert [one["code"] for one in await person.waits(1, *listing)] == ["gone"]
        await write(desk, "crm", "late", "later")
        told = await person.waits(3, *listing)
        assert [one["code"] for one in told] == ["gone", "endpoint_disabled", "endpoint_disabled"]
        states = {row["endpoint"]: row["state"] for row in await person.asks("endpoints", "list")}
        assert (states["crm"], states["other"]) == ("disabled", "ok")

        await person.asks("endpoints", "enable", "crm", "--operator", "ann", "--reason", "it was a mistake")
        (sent,) = await person.asks("deliveries", "resend", "--endpoint", "crm", "--operator", "ann", "--yes")
        assert sent["sent"] == 3
        await until(lambda: len(at(place, "crm")) == 3, "what was sent again")
        assert sorted(one.webhook_id for one in at(place, "crm")) == ["gone-result", "late-result", "later-result"]

        await until(lambda: len(at(place, "ordered")) == 3, "what was to come in order")
        assert [one.webhook_id for one in at(place, "ordered")] == ["first-result", "second-result", "third-result"]
        log = await person.waits(4, "deliveries", "list", "--endpoint", "ordered")
        assert [(one["job"], one["outcome"], one["status"]) for one in log] == [
            ("first", "failed", 500),
            ("first", "delivered", 204),
            ("second", "delivered", 204),
            ("third", "delivered", 204),
        ]
