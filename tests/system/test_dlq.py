"""Dead letters worked on by the command line, on the real broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pipeline import lettering, topology, wiring
from pipeline.broker.admin import open_admin
from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka_producer import open_producer
from pipeline.core.deadletter import Grave, dead_headers
from pipeline.core.errors import ConfigurationError
from pipeline.core.headers import Origin, Tries
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.record import Outgoing, Partition, Record
from pipeline.devkit.kafka import Broker
from pipeline.ops.letters import open_letters
from pipeline.ops.publish import write_all
from pipeline.settings import Environment, load
from tests.system.command import Prepared

pytestmark = [pytest.mark.kafka, pytest.mark.system]

PARTITIONS = 2


def buried(topic: str, number: int, code: str) -> Outgoing:
    """Make a dead letter as the runtime writes it."""
    record = Record("x.contexts.batch", number % PARTITIONS, number, b"k", b"junk", (), 1_700_000_000_000)
    grave = Grave("infer", "x.infer", code, "KeyError", f"KeyError: {number}", "0.1.0", 1_700_000_100.0)
    headers = dead_headers(record, Origin(record.position, record.timestamp_ms), Tries(3), grave)
    return Outgoing(topic, record.key, record.value, headers, record.partition)


async def test_processes_that_share_the_letters_list_what_one_does(
    kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same counts and the same newest letters; one whose process cannot work says so in a sentence."""
    prefix = f"t{uuid4().hex[:8]}"
    variables = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "PIPELINE_TOPIC_PREFIX": prefix}
    configured = load(Environment({**variables, "PIPELINE_DATA": str(tmp_path)}), wiring.STAGES)
    config, topic = KafkaConfig({"bootstrap.servers": kafka.bootstrap_servers}), f"{prefix}.infer.dlq"
    specs = {one.name: one for one in topology.topic_specs(prefix, PARTITIONS)}
    monkeypatch.setattr(lettering, "MANY", 1)
    async with open_admin(config) as admin, open_producer(config) as producer:
        await admin.create_topics([specs[topic]])
        await write_all(producer, [buried(topic, number, "ab"[number // 4]) for number in range(8)])
        async with lettering.open_letter_ports(configured, lambda _: None, lambda *_: None) as ports:
            letters = await open_letters(ports)
            alone, shared = [
                await lettering.listed(letters, configured, (), LetterFilter(), 5, processes) for processes in (1, 2)
            ]
            with pytest.raises(ConfigurationError, match=r"a share of the letters failed: ConfigurationError: --topic"):
                await lettering.listed(letters, configured, ["no.such.topic"], LetterFilter(), 5, 2)
    assert {"a": 4, "b": 4} == alone.counts.by("reason") == shared.counts.by("reason")
    assert (8, 5) == (shared.counts.total, len(shared.newest))
    assert [one[0] for one in alone.newest] == [one[0] for one in shared.newest]
    # Which letter of a kind is its example is left to whichever is read first.
    assert alone.counts.examples.keys() == shared.counts.examples.keys()
    assert alone.counts.oldest_ms == shared.counts.oldest_ms


async def test_letters_are_listed_worked_on_and_purged(kafka: Broker, ready: Prepared, tmp_path: Path) -> None:
    """What one command does the next one sees, on the broker; what is purged is deleted there, and the rest stays."""
    prefix = f"t{uuid4().hex[:8]}"
    dead, letters, audit = f"{prefix}.infer.dlq", f"{prefix}.letters", f"{prefix}.audit"
    config = KafkaConfig({"bootstrap.servers": kafka.bootstrap_servers})
    specs = {one.name: one for one in topology.topic_specs(prefix, PARTITIONS)}

    def dlq(*arguments: str) -> list[Any]:
        environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "PIPELINE_TOPIC_PREFIX": prefix}
        done = ready.run("dlq", *arguments, folder=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    async with open_admin(config) as admin, open_producer(config) as producer:
        await admin.create_topics(specs[name] for name in (dead, letters, audit))
        await write_all(producer, [buried(dead, number, "ab"[number // 4]) for number in range(8)])

        counts, *newest = dlq("list", "--json", "--limit", "3")
        assert (8, {"a": 4, "b": 4}, 3) == (counts["letters"], counts["by"]["reason"], len(newest))
        assert [{"move": "resolve", "letters": 4, "refused": {}}] == dlq(
            "resolve", "--reason", "b", "--why", "a test", "--yes", "--json"
        )
        assert {"open": 4, "resolved": 4} == dlq("list", "--json")[0]["by"]["state"]
        (shown,) = dlq("show", f"{dead}/1/2", "--json")
        assert ("b", "resolved", "a test") == (shown["reason"], shown["state"], shown["done"][0]["reason"])
        assert ["letter.resolved"] == [one["action"] for one in shown["audit"]]
        assert "it begins with 6A 75" in shown["unreadable"]
        (purged,) = dlq("purge", "--reason", "a", "--why", "of no use", "--yes", "--json")
        assert (4, 4, 0) == (purged["letters"], purged["deleted"], purged["waiting"])
        assert {Partition(dead, 0): 2, Partition(dead, 1): 2} == await admin.begin_offsets([dead])
        assert ["b"] * 4 == [one["reason"] for one in dlq("export")]
