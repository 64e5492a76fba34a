from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.devkit.kafka_errors import EmbeddedKafkaError
from pipeline.devkit.kafka_storage import Ports, Storage, random_id, server_properties
from pipeline.resources import resource

TEMPLATE = resource("deploy", "kafka", "server.properties")


@pytest.fixture
def formatted(tmp_path: Path) -> Path:
    """What Kafka's tool makes: two small files."""
    folder = tmp_path / "formatted"
    folder.mkdir()
    (folder / "bootstrap.checkpoint").write_bytes(b"\x00\x01")
    (folder / "meta.properties").write_text("#\n#date\nnode.id=1\ndirectory.id=DD\nversion=1\ncluster.id=CC\n")
    return folder


def storage(folder: Path) -> Storage:
    folder.mkdir()
    return Storage(folder)


def test_each_copy_of_a_formatted_storage_has_ids_of_its_own(tmp_path: Path, formatted: Path) -> None:
    """All else is copied as it is."""
    one, two = storage(tmp_path / "one"), storage(tmp_path / "two")
    one.fill(formatted)
    two.fill(formatted)
    assert len({one.cluster_id, two.cluster_id, "CC"}) == 3
    meta = (one.folder / "logs" / "meta.properties").read_text().splitlines()
    assert {"node.id=1", "version=1"} < set(meta)
    assert {"cluster.id=CC", "directory.id=DD"}.isdisjoint(meta)
    assert len(meta) == 6
    assert (one.folder / "logs" / "bootstrap.checkpoint").read_bytes() == b"\x00\x01"


def test_a_storage_with_topics_is_kept(tmp_path: Path, formatted: Path) -> None:
    """A second start in the same folder serves what the first has left."""
    kept = storage(tmp_path / "kept")
    kept.fill(formatted)
    before = kept.cluster_id
    (kept.folder / "logs" / "topic-0").mkdir()
    kept.fill(formatted)
    assert kept.cluster_id == before
    assert (kept.folder / "logs" / "topic-0").is_dir()


def test_a_copy_that_was_interrupted_is_made_anew(tmp_path: Path, formatted: Path) -> None:
    """Half a copy is never served."""
    half = storage(tmp_path / "half")
    (half.folder / "logs.part").mkdir()
    (half.folder / "logs.part" / "rest").touch()
    half.fill(formatted)
    assert {path.name for path in (half.folder / "logs").iterdir()} == {"bootstrap.checkpoint", "meta.properties"}


def test_a_folder_that_is_no_storage_is_named(tmp_path: Path, formatted: Path) -> None:
    """A storage without a cluster id is not Kafka's."""
    odd = storage(tmp_path / "odd")
    odd.fill(formatted)
    (odd.folder / "logs" / "meta.properties").write_text("version=0\n")
    with pytest.raises(EmbeddedKafkaError, match="no storage of Kafka 4"):
        _ = odd.cluster_id


def test_the_properties_of_a_start_have_its_ports_and_no_path(tmp_path: Path) -> None:
    """The project's properties come first; then the ports; the log folder is relative to the data folder."""
    ready = storage(tmp_path / "ready")
    ready.configure(TEMPLATE, Ports(20_001, 20_002))
    text = (ready.folder / "server.properties").read_text()
    assert text.startswith(TEMPLATE.read_text())
    assert "\nlisteners=PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002\n" in text
    assert "\nadvertised.listeners=PLAINTEXT://127.0.0.1:20001\n" in text
    assert "\ncontroller.quorum.voters=1@127.0.0.1:20002\n" in text
    assert "\nlog.dirs=logs\n" in text


def test_no_property_is_set_twice() -> None:
    """Kafka would silently take the last one."""
    lines = server_properties(TEMPLATE, Ports(1, 2)).splitlines()
    names = [line.split("=")[0] for line in lines if line.strip() and not line.startswith("#")]
    assert len(names) == len(set(names))


def test_the_log_before_is_kept(tmp_path: Path) -> None:
    """Each start has a log of its own; the last one is there for whoever asks why it ended."""
    ready = storage(tmp_path / "ready")
    ready.turn_log()
    ready.log.write_text("first")
    ready.turn_log()
    assert not ready.log.exists()
    assert (ready.folder / "broker.log.1").read_text() == "first"


def test_a_random_id_never_looks_like_an_option() -> None:
    """Ids are 22 characters of base64url, the first of them no dash."""
    ids = {random_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(text) == 22 and not text.startswith("-") for text in ids)
