from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.devkit.kafka_errors import Missing, PortTaken
from pipeline.devkit.kafka_jars import Jars
from pipeline.devkit.kafka_java import Java
from pipeline.devkit.ports import HOST, free_ports
from pipeline.devkit.registry_server import (
    REGISTRY,
    EmbeddedRegistryError,
    RegistryPlan,
    RegistryServer,
    RegistryServerConfig,
    embedded_registry,
)
from pipeline.resources import resource
from tests.registry_fixture import registry_config

pytestmark = pytest.mark.system

POM = resource("deploy", "registry", "pom.xml")
JAVA = Java(Path("java"), 17)
FETCH = 'for word; do case "$word" in -DoutputDirectory=*) cd "${word#*=}";; esac; done'
RUNNER = "apicurio-registry-app-1-runner.jar"


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# ------------------------------------------------------------------ the program


async def test_the_archive_is_unpacked_once_and_all_of_it_in_the_cache(tmp_path: Path) -> None:
    """Maven is told to unpack what the pom names and to leave nothing beside it; the second time it is not run."""
    calls = tmp_path / "calls"
    program(tmp_path / "bin" / "mvn", f"echo \"$@\" >> '{calls}'\n{FETCH}\ntouch {RUNNER}")
    told: list[str] = []
    jars = Jars(POM, tmp_path / "cache", told.append, str(tmp_path / "bin"), REGISTRY)
    folder = await jars.fetch(JAVA)
    assert await jars.fetch(JAVA) == folder
    (called,) = calls.read_text().splitlines()
    assert ":unpack " in called
    assert f"-DmarkersDirectory={folder.with_name('lib.part')}/markers" in called
    assert [path.name for path in folder.glob(REGISTRY.proof)] == [RUNNER]
    assert told == ["downloading Apicurio Registry 3.0.9 (first time only)"]


async def test_without_maven_the_error_names_the_cure(tmp_path: Path) -> None:
    """There is a Java, and nothing in the cache."""
    home = program(tmp_path / "home" / "bin" / "java", "echo 'openjdk version \"17.0.2\"' >&2").parents[1]
    config = RegistryServerConfig(POM, tmp_path / "cache", tmp_path / "data", java_home=home, search_path="")
    with pytest.raises(Missing, match=r"Maven is missing, which fetches Apicurio Registry's jars once.*install Maven"):
        async with embedded_registry(config):
            pytest.fail("it opened")


async def test_without_java_the_error_names_the_cure(tmp_path: Path) -> None:
    """A Java that is too old is named with its version."""
    old = program(tmp_path / "home" / "bin" / "java", "echo 'openjdk version \"11.0.2\"' >&2")
    config = RegistryServerConfig(POM, tmp_path / "cache", tmp_path / "data", java_home=old.parents[1], search_path="")
    with pytest.raises(Missing, match=r"Java 17 or newer is missing .*is version 11.*install a Java runtime"):
        async with embedded_registry(config):
            pytest.fail("it opened")


# ------------------------------------------------------------------ its process


def server(folder: Path, script: str, port: int | None = None, ready: float = 30.0) -> RegistryServer:
    """A registry whose `java` is a script."""
    java = Java(program(folder / "java", script), 17)
    return RegistryServer(RegistryPlan(java, folder / "x.jar", folder, port, ready=ready))


async def test_a_registry_that_dies_at_once_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """Its exit code and its last words are in the error."""
    with pytest.raises(EmbeddedRegistryError, match=r"exit code 3\).*registry\.log, ends with:\nUnsupportedClass"):
        await server(tmp_path, "echo UnsupportedClassVersionError; exit 3").start()


async def test_a_registry_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    """It is killed, and the error says how long it was waited for."""
    slow = server(tmp_path, "exec sleep 600", ready=0.3)
    with pytest.raises(EmbeddedRegistryError, match=r"did not answer within 0\.3 s; its log"):
        await slow.start()
    assert slow.process.returncode == -signal.SIGKILL


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """Before the start, and where somebody takes it during the start, which its log shows."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"cannot listen on {HOST}:{port}.*choose another port"):
            await server(tmp_path, "exit 0", port).start()
    late = server(tmp_path, "echo Port 1 seems to be in use by another process.; exit 1", free_ports(1)[0])
    with pytest.raises(PortTaken, match="the port is in use"):
        await late.start()


# ------------------------------------------------------------------ the real one


def ask(url: str, body: object = None) -> object:
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/vnd.schemaregistry.v1+json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.soak
@pytest.mark.within(180)
async def test_a_real_registry_keeps_its_schemas_and_ids_over_a_kill(tmp_path: Path) -> None:
    """Durable: killed and started again at the same address it knows the id; it listens on the loopback address only,
    has no more memory than it is allowed, and ends with its block.
    """
    schema = {"schema": '{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'}
    async with embedded_registry(registry_config(tmp_path / "a; folder", durable=True)) as one:
        url = one.url
        registered = await asyncio.to_thread(ask, f"{url}/subjects/r-value/versions", schema)
        os.kill(one.process.pid, signal.SIGKILL)
        await one.process.wait()
        await one.restart()
        assert one.url == url
        assert await asyncio.to_thread(ask, f"{url}/subjects/r-value", schema) == {
            **schema,
            "subject": "r-value",
            "version": 1,
            "references": [],
            **registered,  # type: ignore[dict-item]  # the id
        }
        process = psutil.Process(one.process.pid)
        listening = {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert listening <= {HOST, f"::ffff:{HOST}"}
        assert process.memory_info().rss < 400 * 1024**2
        with pytest.raises(EmbeddedRegistryError, match="Another embedded registry uses the folder"):
            await refused(registry_config(tmp_path / "a; folder"))
    assert not process.is_running()


async def refused(config: RegistryServerConfig) -> None:
    async with embedded_registry(replace(config, busy=0.1)):
        pytest.fail("it opened")
