from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.devkit.kafka_archive import Archive, archive_of, training
from pipeline.devkit.kafka_cache import locked
from pipeline.devkit.kafka_java import Java
from pipeline.devkit.kafka_train import train
from pipeline.resources import resource

SETTINGS = resource("deploy", "kafka")


def machine(folder: Path, version: int = 17, script: str = "exit 1") -> Java:
    """A Java machine that is a script."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    (folder / "release").write_text(f'IMPLEMENTOR="X"\nJAVA_VERSION="{version}.0.1"\n')
    return Java(program, version)


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    """The jars of one version of Kafka, in the place where the cache has them."""
    folder = tmp_path / "kafka" / "4.3.1-x" / "lib"
    folder.mkdir(parents=True)
    (folder / "one.jar").write_bytes(b"1")
    (folder / "two.jar").write_bytes(b"22")
    return folder


@pytest.fixture
def archive(tmp_path: Path, jars: Path) -> Archive:
    return archive_of(machine(tmp_path / "java"), jars)


def age(file: Path, seconds: float) -> None:
    """Make a file older."""
    moment = time.time() - seconds
    os.utime(file, (moment, moment))


# ------------------------------------------------------------------------------------------------ which it is
def test_an_archive_is_found_again(tmp_path: Path, archive: Archive, jars: Path) -> None:
    """The same machine and jars have the same archive, beside the jars."""
    assert archive_of(archive.java, jars) == archive
    assert archive.file.parent == jars.parent


def test_what_java_compares_is_in_the_name(tmp_path: Path, archive: Archive, jars: Path) -> None:
    """Another machine, an update of it in place, a jar of another name, size or time: another archive each."""
    files = {archive.file, archive_of(machine(tmp_path / "other"), jars).file}
    (tmp_path / "java" / "release").write_text('JAVA_VERSION="17.0.16"\n')
    files.add(archive_of(archive.java, jars).file)
    (jars / "two.jar").write_bytes(b"333")
    files.add(archive_of(archive.java, jars).file)
    age(jars / "two.jar", 60)
    files.add(archive_of(archive.java, jars).file)
    (jars / "two.jar").rename(jars / "three.jar")
    files.add(archive_of(archive.java, jars).file)
    (tmp_path / "java" / "release").unlink()
    files.add(archive_of(archive.java, jars).file)
    assert len(files) == 7


@pytest.mark.parametrize(
    "version, uses, writes",
    [
        (17, "-XX:SharedArchiveFile=", "-XX:ArchiveClassesAtExit="),
        (24, "-XX:SharedArchiveFile=", "-XX:ArchiveClassesAtExit="),
        (25, "-XX:AOTCache=", "-XX:AOTCacheOutput="),
    ],
)
def test_each_java_has_flags_of_its_own(tmp_path: Path, jars: Path, version: int, uses: str, writes: str) -> None:
    """A class data archive before Java 25, an ahead-of-time cache since."""
    archive = archive_of(machine(tmp_path / "java", version), jars)
    archive.file.write_bytes(b"classes")
    assert archive.flags() == (f"{uses}{archive.file}",)
    assert archive.writing(Path("made")) == (f"{writes}made",)


# ------------------------------------------------------------------------------------------------ its life
def test_an_archive_is_wanted_until_it_is_there(tmp_path: Path, archive: Archive) -> None:
    """Until then nothing is asked of Java; then it is used, and its use is noted."""
    assert archive.wanted()
    assert archive.flags() == ()
    made = tmp_path / "made"
    made.write_bytes(b"classes")
    archive.keep(made)
    assert not archive.wanted()
    assert archive.file.read_bytes() == b"classes"
    assert not made.exists()
    age(archive.file, 3600)
    assert archive.flags()
    assert time.time() - archive.file.stat().st_mtime < 1800


@pytest.mark.parametrize("content", [None, b""], ids=["no file", "an empty file"])
def test_a_machine_that_makes_none_is_asked_again_after_a_day(
    tmp_path: Path, archive: Archive, content: bytes | None
) -> None:
    """Not at every start; and a start without an archive is as good as before."""
    if content is not None:
        (tmp_path / "made").write_bytes(content)
    archive.keep(tmp_path / "made")
    assert not archive.wanted()
    assert archive.flags() == ()
    age(archive.file, 25 * 3600)
    assert archive.wanted()


def test_an_archive_that_does_harm_is_given_up(archive: Archive) -> None:
    """It is neither used nor made again at once."""
    archive.file.write_bytes(b"harm")
    archive.give_up()
    assert archive.flags() == ()
    assert not archive.wanted()


def test_archives_unused_for_long_go(tmp_path: Path, archive: Archive) -> None:
    """Three stay: the new one, and the two that were used last, of whichever version of Kafka."""
    old = archive.file.parents[1] / "4.2.0-y"
    old.mkdir()
    for number, folder in enumerate([old, archive.file.parent, old, archive.file.parent]):
        file = folder / f"classes-{number}"
        file.write_bytes(b"x")
        age(file, 60 * (1 + number))
    (old / "lib.lock").touch()
    made = tmp_path / "made"
    made.write_bytes(b"classes")
    archive.keep(made)
    left = {path.name for path in archive.file.parents[1].rglob("classes-*")}
    assert left == {archive.file.name, "classes-0", "classes-1"}
    assert (old / "lib.lock").exists()


# ------------------------------------------------------------------------------------------------ its making
async def test_one_process_makes_it_and_others_leave(tmp_path: Path, archive: Archive) -> None:
    """Two starts at once train one broker, not two."""
    async with locked(archive.lock, lambda: None, 0):
        await train(archive, SETTINGS, tmp_path / "formatted")
    assert archive.wanted()


@pytest.fixture
def formatted(tmp_path: Path) -> Path:
    """A storage as Kafka's tool makes it."""
    folder = tmp_path / "formatted"
    folder.mkdir()
    (folder / "meta.properties").write_text("node.id=1\ndirectory.id=DD\nversion=1\ncluster.id=CC\n")
    return folder


@pytest.mark.system
async def test_a_machine_that_ends_in_the_making_is_given_up(archive: Archive, formatted: Path) -> None:
    """Java that refuses the flag, or has no room, is asked again after a day; nothing of the making stays."""
    async with training(archive, SETTINGS, formatted):
        await reached(archive.file)
    assert not archive.wanted()
    assert archive.flags() == ()


@pytest.mark.system
async def test_the_making_ends_with_its_owner(tmp_path: Path, jars: Path, formatted: Path) -> None:
    """Whoever ends before it is done leaves no process behind, and the next start makes it."""
    pid = tmp_path / "pid"
    script = f"[ -e '{pid}' ] || echo $$ > '{pid}.part' && mv '{pid}.part' '{pid}'; exec sleep 600"
    archive = archive_of(machine(tmp_path / "java", script=script), jars)
    async with training(archive, SETTINGS, formatted):
        await reached(pid)
        child = int(pid.read_text())
        assert psutil.pid_exists(child)
    async with asyncio.timeout(20):
        while psutil.pid_exists(child):
            await asyncio.sleep(0.01)
    assert archive.wanted()


@pytest.mark.system
async def test_a_making_that_cannot_begin_is_no_error(
    archive: Archive, formatted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker runs; that the next one starts slowly, too, is no reason to stop it."""
    monkeypatch.setattr(sys, "executable", "/nothing/python")
    async with training(archive, SETTINGS, formatted):
        assert archive.wanted()


async def reached(file: Path) -> None:
    async with asyncio.timeout(30):
        while not file.exists():
            await asyncio.sleep(0.01)
