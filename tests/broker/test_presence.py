"""Whether broker and topics are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from pipeline.broker.presence import AWAY_SECONDS, MISSING_SECONDS, QUIET_SECONDS, Presence


@dataclass
class Topic:
    """What metadata say of a topic."""

    error: KafkaError | None = None


@dataclass
class Metadata:
    """An answer."""

    topics: Mapping[str, Topic]


@dataclass
class Broker:
    """Answers for topics, unless it is away."""

    topics: dict[str, Topic] = field(default_factory=dict)
    away: bool = False
    asked: list[str | None] = field(default_factory=list)

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Metadata:
        """Answer, or raise as the client does after its timeout."""
        self.asked.append(topic)
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        unknown = Topic(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        return Metadata({topic: self.topics.get(topic, unknown)} if topic else {})


def make(topics: list[str]) -> tuple[Presence, list[float]]:
    """A presence that expects topics, and its clock."""
    now = [100.0]
    presence = Presence("g", lambda: now[0])
    presence.expect(topics)
    return presence, now


def test_asks_until_all_is_there() -> None:
    """Missing topics are asked for every few seconds, until each was seen; then nothing is asked while all is well."""
    presence, now = make(["a", "b"])
    broker = Broker({"a": Topic()})
    assert [presence.connected, presence.due()] == [False, True]
    assert presence.probe(broker) is None
    assert [presence.connected, presence.due()] == [True, False]
    now[0] += MISSING_SECONDS
    assert presence.due()
    broker.topics["b"] = Topic()
    presence.probe(broker)
    assert broker.asked == ["a", "b", "b"]
    now[0] += 1000
    presence.heard = True
    assert not presence.due()


def test_what_is_missing_is_told_once() -> None:
    """The topic of an empty table may not be there for days; a line every five seconds would bury all others."""
    presence, _ = make(["a", "b"])
    broker = Broker({})
    with capture_logs() as lines:
        for _ in range(3):
            presence.probe(broker)
        broker.topics["a"] = Topic()
        presence.probe(broker)
        presence.probe(broker)
    assert [line["topics"] for line in lines if line["action"] == "topic_missing"] == [["a", "b"]]
    assert presence.missing == ("b",)


def test_an_assignment_is_proof() -> None:
    """Topics whose partitions were assigned are there, and so is the broker."""
    presence, now = make(["a", "b"])
    presence.seen(["a", "b"])
    now[0] += 1000
    assert [presence.connected, presence.due()] == [True, False]


def test_silence_is_broken_by_a_question() -> None:
    """Where nothing was heard for a while the broker is asked: one that hangs closes no connection."""
    presence, now = make(["a", "b"])
    broker = Broker({"a": Topic(), "b": Topic()})
    presence.probe(broker)
    assert not presence.due()
    now[0] += QUIET_SECONDS
    assert presence.due()
    broker.away = True
    presence.probe(broker)
    assert not presence.connected


def test_topic_that_was_there_and_is_not() -> None:
    """A topic that is deleted while its records are waited for is missing, until it is there again."""
    presence, now = make(["a", "b"])
    broker = Broker({"a": Topic(), "b": Topic()})
    presence.probe(broker)
    del broker.topics["b"]
    now[0] += QUIET_SECONDS
    presence.probe(broker)
    assert presence.missing == ("b",)
    presence.seen(["b"])
    assert not presence.missing


def test_broker_that_goes_and_comes() -> None:
    """While the broker is away it is asked every second; its first answer ends that."""
    presence, now = make(["a"])
    broker = Broker({"a": Topic()})
    presence.probe(broker)
    presence.away("all down")
    broker.away = True
    assert not presence.due()
    now[0] += AWAY_SECONDS
    assert presence.due()
    presence.probe(broker)
    assert [presence.connected, presence.due()] == [False, False]
    now[0] += AWAY_SECONDS
    broker.away = False
    assert presence.probe(broker) is None
    assert presence.connected
    assert set(broker.asked) == {"a"}


def test_topic_that_may_not_be_read() -> None:
    """A topic that we may not read is a Halt that names it, not something to wait for."""
    presence, _ = make(["a"])
    halt = presence.probe(Broker({"a": Topic(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))}))
    assert halt is not None
    assert "group g: topic a may not be read" in halt.reason
