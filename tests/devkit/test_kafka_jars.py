from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.devkit.kafka_errors import EmbeddedKafkaError, Missing
from pipeline.devkit.kafka_jars import Jars
from pipeline.devkit.kafka_java import Java
from pipeline.resources import resource

pytestmark = pytest.mark.system

JAVA = Java(Path("java"), 17)

# Stands for Maven: writes down how it was called, and what it does then is each test's.
FETCH = 'for word; do case "$word" in -DoutputDirectory=*) cd "${word#*=}";; esac; done'


@dataclass
class Machine:
    """A machine with a `mvn` of the test's own and an empty cache, in a folder with a space in its name."""

    folder: Path
    told: list[str] = field(default_factory=list)

    def maven(self, script: str) -> None:
        program = self.folder / "bin" / "mvn"
        program.parent.mkdir(parents=True, exist_ok=True)
        calls = self.folder / "calls"
        program.write_text(f'#!/bin/sh\necho "$@" JAVA_HOME="$JAVA_HOME" >> "{calls}"\n{FETCH}\n{script}\n')
        program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def jars(self) -> Jars:
        pom = resource("deploy", "kafka", "pom.xml")
        return Jars(pom, self.folder / "cache", self.told.append, str(self.folder / "bin"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "a folder")


async def test_the_jars_are_fetched_once(machine: Machine) -> None:
    """The first time Maven fetches, and a person is told so; the second time Maven is not even needed."""
    machine.maven("touch kafka_2.13-4.jar other.jar")
    folder = await machine.jars.fetch(JAVA)
    assert {path.name for path in folder.iterdir()} == {"kafka_2.13-4.jar", "other.jar"}
    assert machine.told == [f"downloading Kafka {machine.jars.version} (first time only)"]
    (machine.folder / "bin" / "mvn").unlink()
    assert await machine.jars.fetch(JAVA) == folder
    assert len(machine.calls) == 1
    assert len(machine.told) == 1


async def test_several_starts_at_once_fetch_once(machine: Machine) -> None:
    """Whoever comes second waits for the first."""
    machine.maven("sleep 0.2; touch kafka_2.13-4.jar")
    await asyncio.gather(*(machine.jars.fetch(JAVA) for _ in range(3)))
    assert len(machine.calls) == 1
    assert "waiting for another process that downloads Kafka" in machine.told


async def test_an_interrupted_download_is_not_taken_for_whole(machine: Machine) -> None:
    """Cancelled in the middle, it leaves no folder of jars; the next start fetches all."""
    machine.maven("touch kafka_2.13-4.jar; sleep 600")
    fetching = asyncio.create_task(machine.jars.fetch(JAVA))
    part = machine.jars.folder / "lib.part" / "kafka_2.13-4.jar"
    async with asyncio.timeout(20):
        while not part.exists():
            await asyncio.sleep(0.01)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert not (machine.jars.folder / "lib").exists()
    machine.maven("touch kafka_2.13-4.jar whole.jar")
    assert (await machine.jars.fetch(JAVA) / "whole.jar").exists()


async def test_without_maven_it_is_said_to_be_missing(machine: Machine) -> None:
    """The cure is named."""
    with pytest.raises(Missing, match="install Maven"):
        await machine.jars.fetch(JAVA)


async def test_a_download_that_fails_says_why_and_where_the_log_is(machine: Machine) -> None:
    """Without a network the jars are missing; Maven's own words are kept."""
    machine.maven("echo '[ERROR] unknown host'; exit 1")
    with pytest.raises(Missing, match=r"unknown host; see .*maven\.log.*connect to the network"):
        await machine.jars.fetch(JAVA)


async def test_a_pom_without_kafka_is_an_error(machine: Machine) -> None:
    """Maven that succeeds with nothing is no success."""
    machine.maven("touch other.jar")
    with pytest.raises(EmbeddedKafkaError, match="fetched no Kafka"):
        await machine.jars.fetch(JAVA)


async def test_maven_runs_on_the_packaged_java_only_if_there_is_no_other(machine: Machine) -> None:
    """The machine's own Java has the certificates that its owner trusts."""
    machine.maven("touch kafka_2.13-4.jar")
    await machine.jars.fetch(Java(Path("packaged/bin/java"), 25, packaged=True))
    assert machine.calls[0].endswith("JAVA_HOME=packaged")


def test_another_pom_has_other_jars(machine: Machine, tmp_path: Path) -> None:
    """A change of the pom, even of a library below Kafka, is a change of folder."""
    pom = tmp_path / "pom.xml"
    pom.write_text(re.sub(r"<log4j\.version>.*?<", "<log4j.version>1<", machine.jars.pom.read_text()))
    other = Jars(pom, machine.jars.cache, machine.told.append)
    assert other.version == machine.jars.version
    assert other.folder != machine.jars.folder


def test_a_pom_that_names_no_version_is_an_error(tmp_path: Path) -> None:
    """The file is ours: restoring it is the cure."""
    pom = tmp_path / "pom.xml"
    pom.write_text("<project/>")
    with pytest.raises(EmbeddedKafkaError, match=r"names no <kafka\.version>"):
        _ = Jars(pom, tmp_path, print).version
