"""`pipeline dlq replay` on the real broker: stopped, killed, resumed, taken over; each letter goes back once."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.broker.admin import Admin, open_admin
from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka_reader import open_reader
from pipeline.core import headers as h
from pipeline.core.record import Record
from pipeline.devkit.kafka import Broker
from pipeline.ops.log_scan import scan
from pipeline.settings import Configured
from tests.ops.replay_dead import buried
from tests.system.command import plain_environment, start

pytestmark = [pytest.mark.kafka, pytest.mark.system, pytest.mark.soak]

COUNT = 300


def variables(configured: Configured) -> dict[str, str]:
    """The variables that say where the letters are."""
    told = {name: configured.environment.get(name) for name in ("KAFKA_BOOTSTRAP_SERVERS", "PIPELINE_TOPIC_PREFIX")}
    return {name: value for name, value in told.items() if value}


def replaying(folder: Path, configured: Configured, *arguments: str) -> subprocess.Popen[str]:
    """Start a replay that nobody is asked about."""
    environment = plain_environment(**variables(configured))
    return start("dlq", "replay", "--yes", "--json", *arguments, folder=folder, environment=environment)


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a replay's end; returns its code, and what it printed."""
    printed, _ = await asyncio.to_thread(process.communicate, None, 60)
    return process.returncode, printed


async def grown(admin: Admin, topic: str, least: int) -> None:
    """Wait until so many offsets of a topic are written."""
    async with asyncio.timeout(60):
        while sum((await admin.end_offsets([topic])).values()) < least:
            await asyncio.sleep(0.02)


async def committed(config: KafkaConfig, admin: Admin, topic: str) -> Sequence[Record]:
    """Read all of a topic that is there for good."""
    found: list[Record] = []
    async with open_reader(config, "test", committed=True) as reader:
        ends = await reader.ends(list(await admin.end_offsets([topic])))
        async for records in scan(reader, {name: range(end) for name, end in ends.items()}):
            found += records
    return found


@pytest.mark.within(120)
async def test_stopped_killed_and_resumed(kafka: Broker, tmp_path: Path) -> None:
    """SIGTERM ends it, and says how to go on; after kill -9 another takes over; each letter has gone back once."""
    config = KafkaConfig({"bootstrap.servers": kafka.bootstrap_servers})
    async with buried(kafka.bootstrap_servers, COUNT) as configured, open_admin(config) as admin:
        prefix = variables(configured)["PIPELINE_TOPIC_PREFIX"]
        back, dead = f"{prefix}.infer.retry.10s", f"{prefix}.infer.dlq"

        first = replaying(tmp_path, configured, "--rate", "60", "--operator", "ann")
        await grown(admin, back, 20)
        first.send_signal(signal.SIGTERM)
        code, printed = await ended(first)
        assert code == 130, printed
        plan, _, run = printed.splitlines()[-3:]
        assert json.loads(plan)["plan"]["going"] == COUNT
        assert json.loads(run)["run"]["stopped"]
        name = json.loads(run)["replay"]

        done = json.loads(run)["run"]["replayed"]
        second = replaying(tmp_path, configured, "--rate", "60", "--resume", name)
        await grown(admin, back, done + 60)
        second.kill()
        await ended(second)

        code, printed = await ended(replaying(tmp_path, configured, "--rate", "5000", "--resume", name, "--take-over"))
        assert code == 0, printed
        copies = await committed(config, admin, back)
        letters = Counter(h.texts(one.headers)[h.REPLAY_LETTER] for one in copies)
        assert (COUNT, {1}) == (len(letters), set(letters.values()))
        assert {one.value for one in await committed(config, admin, dead)} == {one.value for one in copies}
