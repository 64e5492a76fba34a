"""Tests of pipeline/devkit/properties.py, and of the properties files that it reads."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.core.tables import parse_tables
from pipeline.devkit.connect import Source, connector_configuration
from pipeline.devkit.properties import read_properties
from pipeline.resources import resource
from pipeline.settings_yaml import read_yaml

SETTINGS = resource("deploy", "connect")


def test_a_value_may_hold_what_parts_names_from_values(tmp_path: Path) -> None:
    """The first `=` ends the name; comments and empty lines are none."""
    file = tmp_path / "some.properties"
    file.write_text("# a=1\n\nb=2=3\nc=\n")
    assert read_properties(file) == {"b": "2=3", "c": ""}


def test_the_connector_asks_for_no_variable_that_its_source_does_not_give() -> None:
    """Connect takes a variable that is not there for a text of its own: `${env:...}` would be a host's name."""
    asked = set(re.findall(r"\$\{env:(\w+)\}", "\n".join(connector_configuration(SETTINGS).values())))
    assert asked == set(Source("host", 5432, "app", "placeholder").environment)
    for worker in ("standalone", "distributed"):
        allowed = read_properties(SETTINGS / f"{worker}.properties")["config.providers.env.param.allowlist.pattern"]
        assert all(re.fullmatch(allowed, name) for name in asked)


def test_changes_are_laid_over_the_connector_of_the_project() -> None:
    """What a test or a site differs in replaces the file's own line."""
    own = connector_configuration(SETTINGS, {"topic.prefix": "mine"})
    assert own == connector_configuration(SETTINGS) | {"topic.prefix": "mine"}


def test_the_default_mapping_reads_the_topics_of_the_connector() -> None:
    """deploy/tables.yaml maps each table that documents.properties sends, by the name that its topic has."""
    connector = connector_configuration(SETTINGS)
    prefix, sent = connector["topic.prefix"], connector["table.include.list"].split(",")
    path = resource("deploy", "tables.yaml")
    tables = parse_tables(read_yaml(path, "tables", "PIPELINE_TABLES"), str(path))
    assert set(tables.tables) == {f"{prefix}.{table}" for table in sent}


def test_connect_and_the_embedded_broker_are_of_one_version() -> None:
    """Each pom is complete in itself, so their versions are kept equal here."""
    poms = [resource("deploy", *parts).read_text() for parts in (("kafka", "pom.xml"), ("connect", "pom.xml"))]
    for name in ("kafka.version", "log4j.version"):
        first, second = (re.findall(rf"<{name}>(.*?)</{name}>", pom) for pom in poms)
        assert first == second
        assert len(first) == 1


def test_the_limit_of_a_value_is_the_same_everywhere() -> None:
    """What the producer lets through, the topics take: else the connector would stop at the larger of them."""
    connector = connector_configuration(SETTINGS)
    names = ("producer.override.max.request.size", "topic.creation.default.max.message.bytes")
    assert {connector[name] for name in names} == {"16777216"}
