from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from pipeline.devkit import kafka_server
from pipeline.devkit.kafka_errors import EmbeddedKafkaError, PortTaken
from pipeline.devkit.kafka_java import Java
from pipeline.devkit.kafka_server import KafkaServer, ServerPlan
from pipeline.devkit.kafka_storage import Storage
from pipeline.devkit.ports import HOST, free_ports
from pipeline.resources import resource

pytestmark = pytest.mark.system

SERVE = "exec sleep 600"
BIND_FAILS = "echo 'KafkaException: Socket server failed to bind to 127.0.0.1:1: Address already in use.'; exit 1"


@dataclass
class Stage:
    """A server whose `java` is a script, and whose answer to a client is the test's choice."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    answer: str | None = "OURS"

    def server(self, script: str, port: int | None = None) -> KafkaServer:
        self.java(script)
        (self.folder / "logs").mkdir(exist_ok=True)
        (self.folder / "logs" / "meta.properties").write_text("cluster.id=OURS\n")
        settings, jars, storage = resource("deploy", "kafka"), self.folder / "lib", Storage(self.folder)
        return KafkaServer(ServerPlan(Java(self.folder / "java", 17), jars, settings, storage, self.cluster_at, port))

    def java(self, script: str) -> None:
        program = self.folder / "java"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def cluster_at(self, bootstrap_servers: str) -> str | None:
        self.asked.append(bootstrap_servers)
        return self.answer


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def reached(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_server_is_ready_when_its_own_cluster_answers(stage: Stage) -> None:
    """Another cluster that has our port, such as one of an earlier run, is not taken for ours."""
    stage.answer = "ANOTHER"
    server = stage.server(SERVE)
    starting = asyncio.create_task(server.start())
    await reached(lambda: len(stage.asked) > 3)
    assert not starting.done()
    stage.answer = "OURS"
    await starting
    assert stage.asked[-1] == server.bootstrap_servers
    await server.process.kill()


async def test_a_port_that_was_taken_meanwhile_is_given_up_for_another(stage: Stage) -> None:
    """Between choosing a port and listening on it somebody may be quicker: the next start has new ports."""
    stage.answer = None
    server = stage.server(f"[ -e second ] && {SERVE}; touch second; {BIND_FAILS}")
    starting = asyncio.create_task(server.start())
    await reached(lambda: len(set(stage.asked)) > 1)
    stage.answer = "OURS"
    await starting
    assert server.process.running
    await server.process.kill()


async def test_ports_that_are_always_taken_end_in_an_error(stage: Stage) -> None:
    """After four tries it is said which port it was."""
    stage.answer = None
    server = stage.server(BIND_FAILS)
    with pytest.raises(PortTaken, match=r"cannot listen on 127\.0\.0\.1:\d+, as the port is in use"):
        await server.start()
    assert len(set(stage.asked)) == 4


async def test_a_fixed_port_in_use_is_one_sentence_that_names_it(stage: Stage) -> None:
    """No Java machine is started for nothing."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf":{port}, as the port is in use: stop what listens there, or choose"):
            await stage.server("exit 1", port).start()
    assert not stage.asked


async def test_a_fixed_port_that_is_taken_meanwhile_is_not_exchanged(stage: Stage) -> None:
    """Who has fixed a port wants no other."""
    stage.answer = None
    [port] = free_ports(1)
    with pytest.raises(PortTaken, match=f":{port},"):
        await stage.server(BIND_FAILS, port).start()
    assert set(stage.asked) <= {f"{HOST}:{port}"}


async def test_a_server_that_ends_while_it_starts_shows_the_end_of_its_log(stage: Stage) -> None:
    """What went wrong is in the last lines, and the path is there for the rest."""
    stage.answer = None
    with pytest.raises(EmbeddedKafkaError) as raised:
        await stage.server("seq 1 50; echo 'ERROR no such property'; exit 3").start()
    text = str(raised.value)
    assert "ended while it was starting (exit code 3)" in text
    assert str(stage.folder / "broker.log") in text
    assert text.endswith("50\nERROR no such property")


async def test_a_server_that_never_answers_is_ended(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is bounded, and nothing is left running."""
    monkeypatch.setattr(kafka_server, "_READY_SECONDS", 2.0)
    stage.answer = None
    server = stage.server(f"echo waiting; {SERVE}")
    with pytest.raises(EmbeddedKafkaError, match=r"(?s)did not answer within 2 s.*broker\.log.*waiting"):
        await server.start()
    assert not server.process.running


async def test_a_start_that_is_cancelled_leaves_nothing(stage: Stage) -> None:
    """Ctrl-C while the broker starts ends it."""
    stage.answer = None
    server = stage.server(SERVE)
    starting = asyncio.create_task(server.start())
    await reached(lambda: stage.asked)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not server.process.running


async def test_a_restart_keeps_the_address(stage: Stage) -> None:
    """A broker that was killed comes back where its clients look for it, as another process."""
    server = stage.server(SERVE)
    await server.start()
    address, before = server.bootstrap_servers, server.process.pid
    os.kill(before, signal.SIGKILL)
    await server.restart()
    assert server.bootstrap_servers == address
    assert psutil.pid_exists(server.process.pid)
    assert server.process.pid != before
    await server.process.kill()
