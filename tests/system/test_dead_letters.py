"""Five hundred dead letters of mixed failures, worked by the command line until each is at its end, once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import topology, wiring
from pipeline.core import names
from pipeline.core.payloads import Audit, Request
from pipeline.core.record import Outgoing
from pipeline.core.retry import TIERS
from pipeline.devkit.kafka import Broker
from pipeline.devkit.simulator_faults import Fault, FaultKind
from pipeline.resources import resource
from tests.system.command import plain_environment, start
from tests.system.site import Site, site, until

pytestmark = [pytest.mark.kafka, pytest.mark.system]

UNKNOWN, REFUSED, LATE, JUNK = 120, 180, 100, 100
"""Letters of `infer`, whose catalog has no such type; of `infer`, whose model refuses; of `postprocess`, whose catalog
has no such type; and of `preprocess`, which cannot decode them."""
ALL = UNKNOWN + REFUSED + LATE + JUNK
CHAIN = ("preprocess", "retrieve", "infer", "postprocess", "notify", "deliver")


def catalogs(folder: Path) -> dict[str, str]:
    """Write a catalog with three types, and for two stages one that lacks one of them; returns their paths."""
    known = yaml.safe_load(resource("deploy", "catalog.yaml").read_text("utf-8"))
    kinds = known["types"]
    kinds["late"] = dict(kinds["quick_answer"])
    for kind in kinds.values():
        kind["deadline_seconds"] = 1800
    paths = {}
    for stage, lacks in {"preprocess": "", "infer": "detailed_analysis", "postprocess": "late"}.items():
        paths[stage] = str(folder / f"{stage}.yaml")
        told = {**known, "types": {name: kind for name, kind in kinds.items() if name != lacks}}
        Path(paths[stage]).write_text(yaml.safe_dump(told), "utf-8")
    return paths


async def start_lacking(place: Site, known: Mapping[str, str]) -> None:
    """Start all stages, each with the catalog that it has."""
    groups = {
        "preprocess": ("preprocess", "retrieve", "notify", "deliver"),
        "infer": ("infer",),
        "postprocess": ("postprocess",),
    }
    starts = (
        place.start(*stages, "--accept-dead-letters", "1000", name=f"{name}, lacking", PIPELINE_CATALOG=known[name])
        for name, stages in groups.items()
    )
    await asyncio.gather(*starts)


async def sent(place: Site) -> list[str]:
    """Write what will fail; returns the ids of the jobs that can be repaired."""
    async with place.desk() as desk:
        kinds = [("detailed_analysis", "unknown")] * UNKNOWN + [("quick_answer", "refused")] * REFUSED
        asked = [
            Request(type=kind, input=f"Is {number} {word}?")
            for number, (kind, word) in enumerate([*kinds, *[("late", "late")] * LATE])
        ]
        jobs = [await desk.request(one) for one in asked]
        topic = names.topic(place.prefix, "requests")
        acknowledged = asyncio.Queue[Exception | None]()
        for number in range(JUNK):
            junk = Outgoing(topic, f"junk {number}".encode(), b"\xc3\x01 no schema has this fingerprint")
            desk.producer.send(junk, acknowledged.put_nowait)
        for _ in range(JUNK):
            assert await acknowledged.get() is None
    return jobs


async def ends(place: Site) -> Mapping[str, int]:
    """Where each topic of the site ends."""
    async with place.desk() as desk:
        return dict(await desk.admin.end_offsets(wiring.topic_names(place.configured)))


async def counted(place: Site, *options: str) -> dict[str, Any]:
    """What `dlq list` counts."""
    lines = (await place.command("dlq", "list", "--limit", "0", "--json", *options)).splitlines()
    told: dict[str, Any] = json.loads(lines[0])
    return told


async def audited(place: Site) -> list[Audit]:
    """All that was written to the audit."""
    found: list[Audit] = []
    async with place.desk() as desk:
        topic = names.topic(place.prefix, topology.AUDIT.noun)
        total = sum((await desk.admin.end_offsets([topic])).values())
        async with wiring.open_tail(place.configured, [topic], from_start=True) as records:
            async for record in records:
                # What transactions were committed by are records as well, which nobody is shown.
                found.append(await desk.codec.decode("audit", Audit, record.value or b""))
                if record.offset >= total - 2:
                    return found
    return found


async def killed_in_the_middle(place: Site, *arguments: str) -> str:
    """Start a replay, kill it once it has brought back some letters but not all, and return its id."""
    process = start(*arguments, folder=place.folder, environment=plain_environment(**place.environment))
    tier = names.retry_topic(place.prefix, "infer", TIERS[0])
    async with place.desk() as desk:
        while sum((await desk.admin.end_offsets([tier])).values()) < 60:
            assert process.poll() is None
            await asyncio.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    output = await asyncio.to_thread(lambda: process.communicate()[0])
    plan = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    return str(plan["replay"])


def completed(place: Site) -> Counter[tuple[str, str]]:
    """Of each job that the receiver was told to be completed its id and the message's, and how often it was told."""
    bodies = [(one.body, one.webhook_id) for one in place.receiver.accepted]
    return Counter((body["data"]["job_id"], name) for body, name in bodies if body["type"] == "job.completed")


@pytest.mark.within(240)
async def test_five_hundred_dead_letters_come_to_their_ends(kafka: Broker, tmp_path: Path) -> None:
    """Listed, filtered, planned without a change, replayed in part, killed in the middle, taken over and resumed: each
    job is paid for once and told of once in effect; what cannot be repaired is resolved; the audit has it all."""
    known = catalogs(tmp_path)
    async with site(kafka, tmp_path) as place:
        place.simulator.faults.add(Fault(kind=FaultKind.CONTEXT_LENGTH, times=REFUSED, match="refused"))
        await start_lacking(place, known)
        jobs = await sent(place)
        async with place.desk() as desk:
            while await desk.dead() < ALL:
                await asyncio.sleep(0.2)
        for stage in place.stages.values():
            await stage.process.terminate()
        await look(place)

        await place.start(*CHAIN, name="whole", PIPELINE_CATALOG=known["preprocess"])
        await work(place)
        await until(lambda: len(completed(place)) >= len(jobs), "all jobs completed", 120)
        await place.idle("infer", "postprocess", "notify")

        told = completed(place)
        assert sorted(job for job, _ in told) == sorted(jobs)
        answered = [call.key for call in place.simulator.journal.calls if call.outcome == "ok"]
        assert len(answered) == len(set(answered)) == len(jobs)
        assert (await counted(place))["by"]["state"] == {"replayed": ALL - JUNK, "resolved": JUNK}
        await judge_audit(place)


async def look(place: Site) -> None:
    """List and filter, and plan without a change."""
    counts = (await counted(place))["by"]
    assert counts["stage"] == {"infer": UNKNOWN + REFUSED, "postprocess": LATE, "preprocess": JUNK}
    assert (await counted(place, "--stage", "infer", "--reason", "unknown_*"))["letters"] == UNKNOWN
    assert (await counted(place, "--type", "late"))["letters"] == LATE
    before = await ends(place)
    planned = json.loads(await place.command("dlq", "replay", "--dry-run", "--json"))["plan"]
    assert (planned["going"], planned["refused"]) == (ALL - JUNK, {"undecodable": JUNK})
    assert planned["cost"]["calls"] == UNKNOWN + REFUSED
    assert await ends(place) == before


async def work(place: Site) -> None:
    """Replay a part, which is killed in the middle, taken over and resumed; then the rest; resolve what is junk."""
    asked = ("--stage", "infer", "--yes", "--rate", "60", "--why", "the type is back", "--operator", "ann")
    replay = await killed_in_the_middle(place, "dlq", "replay", *asked, "--json")
    part = (await counted(place, "--stage", "infer"))["by"]["state"]
    assert 0 < part["replayed"] < UNKNOWN + REFUSED
    again = ("--resume", replay, "--take-over", "--yes", "--rate", "1000", "--operator", "ann", "--json")
    report = json.loads((await place.command("dlq", "replay", *again)).splitlines()[-1])["run"]
    assert report["replayed"] == UNKNOWN + REFUSED - part["replayed"]
    await place.command("dlq", "replay", "--stage", "postprocess", "--yes", "--rate", "1000", "--operator", "bob")
    await place.command("dlq", "resolve", "--stage", "preprocess", "--yes", "--why", "not ours", "--operator", "ann")


async def judge_audit(place: Site) -> None:
    """Each step is told of, in order, with who took it."""
    trail = await audited(place)
    assert [(one.action, one.operator) for one in trail] == [
        ("replay.started", "ann"),
        ("replay.resumed", "ann"),
        ("replay.finished", "ann"),
        ("replay.started", "bob"),
        ("replay.finished", "bob"),
        ("letter.resolved", "ann"),
    ]
    assert (trail[0].reason, trail[0].details["going"]) == ("the type is back", str(UNKNOWN + REFUSED))
    assert (trail[-1].reason, trail[-1].details["letters"]) == ("not ours", str(JUNK))
