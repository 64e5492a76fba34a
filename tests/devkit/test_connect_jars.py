"""Tests of pipeline/devkit/connect_jars.py."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from pipeline.devkit.connect_jars import CONNECT, fetch_connect
from pipeline.devkit.kafka_jars import Jars
from pipeline.devkit.kafka_java import Java
from pipeline.resources import resource

ARCHIVE = "debezium-connector-postgres-3-plugin.tar.gz"


def pack(file: Path, *names: str) -> None:
    with tarfile.open(file, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"jar"))


async def test_an_archive_becomes_a_plugin_folder_of_its_jars(tmp_path: Path) -> None:
    """By their names alone: no member can leave the folder. Fetched and unpacked once."""
    told: list[str] = []
    jars = Jars(resource("deploy", "connect", "pom.xml"), tmp_path, told.append, product=CONNECT)
    lib = jars.folder / "lib"
    lib.mkdir(parents=True)
    pack(lib / ARCHIVE, "debezium/README.md", "debezium/one.jar", "../../../two.jar")
    for _ in range(2):
        found = await fetch_connect(jars, Java(Path("java"), 17))
        assert found.jars == lib
        plugin = found.plugins / "debezium-connector-postgres"
        assert {path.name for path in plugin.iterdir()} == {"one.jar", "two.jar"}
        assert (plugin / "two.jar").read_bytes() == b"jar"
        (lib / ARCHIVE).unlink(missing_ok=True)
    assert not (tmp_path / "two.jar").exists()
    assert told == []


def test_its_part_of_the_cache_is_named_by_debezium(tmp_path: Path) -> None:
    """Another version of the connector is another folder; the broker's jars are elsewhere."""
    folder = Jars(resource("deploy", "connect", "pom.xml"), tmp_path, print, product=CONNECT).folder
    assert folder.parent == tmp_path / "connect"
    assert folder.name.startswith("3.6.1.Final-")
