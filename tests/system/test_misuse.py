"""Bad configuration: one clear sentence that names the cure, and an exit code above 0."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.devkit.kafka import Broker
from pipeline.devkit.ports import free_ports
from pipeline.resources import resource
from tests.system.command import Prepared, pipeline, plain_environment, start
from tests.system.site import site

pytestmark = pytest.mark.system

Complains = Callable[..., str]


@pytest.fixture
def complains(ready: Prepared, tmp_path: Path) -> Complains:
    """Run a command in the test's folder that is to fail; returns its complaint."""

    def run(*arguments: str, **variables: str) -> str:
        done = ready.run(*arguments, folder=tmp_path, **variables)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "\npipeline: " in f"\n{done.stderr}"  # a line of the log may come before it
        return done.stderr

    return run


def test_an_unknown_setting_is_an_error_that_suggests_the_right_one(complains: Complains) -> None:
    """A misspelt PIPELINE_* variable ends the program and the sentence names the near one."""
    assert "did you mean PIPELINE_TOPIC_PREFIX" in complains("config", PIPELINE_TOPIK_PREFIX="x")


@pytest.mark.parametrize(
    "name,value",
    [
        ("PIPELINE_TOPIC_PREFIX", "with.dot"),
        ("PIPELINE_PARTITIONS", "none"),
        ("PIPELINE_DRAIN_SECONDS", "-1"),
        ("PIPELINE_INFER_CONCURRENCY", "0"),
        ("PIPELINE_PROBES_PORT", "70000"),
        ("PIPELINE_LOG_LEVEL", "LOUD"),
        ("PIPELINE_CATALOG_FILE", "/nonexistent/file"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(complains: Complains, name: str, value: str) -> None:
    """The sentence about a wrong value names its variable."""
    assert name in complains("config", **{name: value})


def test_no_broker_configured_says_how_to_get_one(complains: Complains) -> None:
    """Without an address and without `up`, the sentence says: start `pipeline up`, or set the variable."""
    text = complains("run", "postprocess")
    assert "KAFKA_BOOTSTRAP_SERVERS" in text
    assert "start `pipeline up`" in text


def test_a_broker_that_cannot_be_reached_is_named_after_the_start_up_time(tmp_path: Path) -> None:
    """The program says what it waits for, and ends after PIPELINE_STARTUP_SECONDS naming address and variable."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    variables = {"KAFKA_BOOTSTRAP_SERVERS": address, "PIPELINE_STARTUP_SECONDS": "1.5"}
    done = pipeline("run", "postprocess", folder=tmp_path, **variables)
    assert done.returncode == 2, done.stderr
    assert "waiting" in done.stderr.lower()
    assert address in done.stderr
    assert "PIPELINE_STARTUP_SECONDS" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_stage_lists_the_known_ones(complains: Complains) -> None:
    """`pipeline run` with a wrong name lists the right ones."""
    text = complains("run", "infur", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert "infer" in text
    assert "infur" in text


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        ("pause", "--all alone"),
        ("pause --all --stage infer", "--all alone"),
        ("resume", "--all alone"),
        ("pause --stage infur", "there are preprocess, retrieve, infer"),
        ("pause --type quick", "no type is called 'quick'"),
        ("resume --model gpt", "no model is called 'gpt'"),
    ],
)
def test_a_pause_of_nothing_that_exists_is_refused(complains: Complains, arguments: str, sentence: str) -> None:
    """Nothing is written: not even the broker is asked."""
    text = complains(*arguments.split(), KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert sentence in " ".join(text.split())


@pytest.mark.parametrize("content", ["types: [", "just text", "models: {}\n", "types: {a: {}}\n"])
def test_a_malformed_catalog_is_one_sentence_that_names_the_file(
    tmp_path: Path, complains: Complains, content: str
) -> None:
    """A catalog that is no YAML, no mapping or incomplete ends the program naming the file."""
    path = tmp_path / "my catalog.yaml"
    path.write_text(content)
    variables = {"PIPELINE_CATALOG": str(path), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    assert "my catalog.yaml" in complains("run", "preprocess", **variables)


def test_a_missing_catalog_is_named(complains: Complains) -> None:
    """A catalog that is not there ends the program naming the path."""
    variables = {"PIPELINE_CATALOG": "nowhere.yaml", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    assert "nowhere.yaml" in complains("run", "preprocess", **variables)


def test_a_model_without_a_key_is_named(complains: Complains) -> None:
    """`infer` without a key says which variable it needs."""
    assert "OPENAI_API_KEY" in complains("run", "infer", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")


def test_an_endpoint_without_its_variables_is_named(complains: Complains) -> None:
    """`notify` without an endpoint's variables names endpoint and variable, and never the secret."""
    text = complains("run", "notify", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", WEBHOOK_SECRET="whsec_c2VjcmV0c2VjcmV0")
    assert "WEBHOOK_URL" in text
    assert "c2VjcmV0" not in text


def test_a_secret_in_the_configuration_is_never_shown(tmp_path: Path) -> None:
    """`pipeline config` masks keys, passwords, secrets, and passwords inside addresses."""
    done = pipeline(
        "config",
        folder=tmp_path,
        OPENAI_API_KEY="sk-hush",
        KAFKA_SASL_PASSWORD="hush",
        SCHEMA_REGISTRY_URL="http://user:hush@127.0.0.1:9",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9",
    )
    assert done.returncode == 0, done.stderr
    assert "hush" not in done.stdout + done.stderr
    assert "environment" in done.stdout


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.kafka
def test_a_port_in_use_is_named(kafka: Broker, complains: Complains, taken: int) -> None:
    """A probes port that is taken ends the program naming the port and the variable."""
    variables = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "PIPELINE_PROBES_PORT": str(taken)}
    text = complains("run", "postprocess", **variables)
    assert str(taken) in text
    assert "PIPELINE_PROBES_PORT" in text


@pytest.mark.kafka
@pytest.mark.within(120)
async def test_two_processes_on_the_embedded_store_are_told_of_qdrant_url(kafka: Broker, tmp_path: Path) -> None:
    """The second process on the embedded vector store ends with a sentence that names QDRANT_URL."""
    async with site(kafka, tmp_path) as place:
        await place.start("retrieve")
        second = start("run", "index", folder=tmp_path, environment=plain_environment(**place.environment))
        output, _ = second.communicate(timeout=60)
        assert second.returncode == 2, output
        assert "QDRANT_URL" in output
        assert "Traceback" not in output


def test_submit_names_the_line_that_is_wrong(tmp_path: Path, complains: Complains) -> None:
    """A bad line of requests is named by file and number, and nothing is sent."""
    path = tmp_path / "requests.jsonl"
    path.write_text('{"type": "quick_answer", "input": "x"}\n{"type": "quick_answer"}\n')
    text = complains("submit", str(path), KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert "requests.jsonl, line 2" in text
    assert "input" in text


def test_doctor_says_what_is_missing_and_the_cure(tmp_path: Path) -> None:
    """On a machine without Java the doctor names it, with its cure, and exits 1."""
    done = pipeline("doctor", folder=tmp_path, PATH="/nonexistent", PIPELINE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Java" in done.stdout
    assert "install" in done.stdout


def test_schemas_check_finds_what_is_incompatible(tmp_path: Path) -> None:
    """The program's own schemas pass; a folder with an incompatible version is refused by name."""
    assert pipeline("schemas", "check", folder=tmp_path).returncode == 0
    folder = tmp_path / "schemas" / "requests"
    folder.mkdir(parents=True)
    first = resource("schemas", "requests", "v1.avsc").read_text()
    (folder / "v1.avsc").write_text(first)
    (folder / "v2.avsc").write_text(first.replace('"name": "input"', '"name": "text"'))
    done = pipeline("schemas", "check", str(folder.parent), folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "v2.avsc" in done.stdout


def test_every_verb_shows_an_example(tmp_path: Path) -> None:
    """The help of each verb ends with an example."""
    verbs = [
        "up",
        "down",
        "demo",
        "run",
        "submit",
        "topics create",
        "topics check",
        "schemas check",
        "schemas diff",
        "schemas register",
        "doctor",
        "config",
        "pause",
        "resume",
        "cancel",
        "control",
    ]
    for verb in verbs:
        done = CliRunner().invoke(app, [*verb.split(), "--help"], env={"NO_COLOR": "1", "TERMINAL_WIDTH": "120"})
        assert done.exit_code == 0
        assert f"Example: pipeline {verb.split()[0]}" in " ".join(done.output.split())
    assert pipeline("--version", folder=tmp_path).stdout.startswith("pipeline ")
