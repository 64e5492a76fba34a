"""`pipeline schemas diff` and `register`, as a person runs them, on a real registry."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.devkit.ports import HOST, free_ports
from pipeline.devkit.registry_server import RegistryServer
from pipeline.resources import resource
from pipeline.wire.schemas import load_schemas
from tests.system.command import Prepared

pytestmark = pytest.mark.system

SCHEMAS = load_schemas(resource("schemas"))
VERSIONS = sum(len(SCHEMAS.versions(noun)) for noun in SCHEMAS.nouns)


def test_from_an_empty_registry_to_an_equal_one(
    registry_server: RegistryServer, ready: Prepared, tmp_path: Path
) -> None:
    """diff finds all missing, a dry run changes nothing, register does it, again does nothing, diff finds all equal."""
    prefix = f"t{uuid4().hex}"
    variables = {
        "SCHEMA_REGISTRY_URL": registry_server.url.replace("://", "://me:hunter2@"),
        "PIPELINE_TOPIC_PREFIX": prefix,
    }

    def schemas(*arguments: str) -> tuple[int, str]:
        done = ready.run("schemas", *arguments, folder=tmp_path, **variables)
        assert "hunter2" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    code, said = schemas("register", "--dry-run")
    assert code == 0
    assert said.count("would register") == VERSIONS
    assert said.count("would set") == len(SCHEMAS.nouns)
    code, said = schemas("diff")
    assert code == 1
    assert "lacks documents/v1.avsc; lacks documents/v2.avsc; has compatibility level NONE" in said

    code, said = schemas("register", "--keep-level")
    assert code == 0
    assert said.count("registered  ") == VERSIONS
    assert "set  " not in said
    code, said = schemas("diff", "--json")
    assert code == 1
    assert {line["level"] for line in map(json.loads, said.splitlines())} == {"NONE"}

    code, said = schemas("register", "--json")
    assert code == 0
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["level"] for line in lines} == {"FULL_TRANSITIVE"}
    assert len(lines) == len(SCHEMAS.nouns)
    code, said = schemas("register")
    assert code == 0
    assert " ".join(said.split()) == f"the schema registry at {registry_server.url} has everything already"
    code, said = schemas("diff", "--json")
    assert code == 0
    assert all(json.loads(line)["equal"] for line in said.splitlines())


@pytest.mark.parametrize("verb", ["diff", "register"])
def test_without_a_registry_one_sentence_says_what_to_do(verb: str, ready: Prepared, tmp_path: Path) -> None:
    """Not configured, and configured where nothing listens."""
    done = ready.run("schemas", verb, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("pipeline: SCHEMA_REGISTRY_URL is not set: name the address")
    address = f"{HOST}:{free_ports(1)[0]}"
    done = ready.run("schemas", verb, folder=tmp_path, SCHEMA_REGISTRY_URL=f"http://me:hunter2@{address}")
    assert done.returncode == 2
    assert done.stderr == (
        f"pipeline: the schema registry at http://{address} cannot be reached or understood (ConnectError): start it, "
        "or mend SCHEMA_REGISTRY_URL, and run this again\n"
    )
