"""Configuration of the clients: names, defaults, overrides, and what is refused."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.client_log import ClientLog
from pipeline.broker.config import (
    PROTECTED,
    GroupProtocol,
    KafkaConfig,
    choose_protocol,
    from_environment,
    is_secret,
    property_of,
    refused,
    variable_of,
)
from pipeline.core.errors import ConfigurationError

SERVERS = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
CONFIG = from_environment(SERVERS)
QUICK = {"group.coordinator.rebalance.protocols": "classic,consumer", "group.consumer.heartbeat.interval.ms": "500"}


@pytest.mark.parametrize(
    "variable,name",
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "bootstrap.servers"),
        ("KAFKA_SECURITY_PROTOCOL", "security.protocol"),
        ("KAFKA_SSL_CA_LOCATION", "ssl.ca.location"),
        ("KAFKA_LOG_LEVEL", "log_level"),
    ],
)
def test_names(variable: str, name: str) -> None:
    """A property is its variable's name in small letters with dots; the one that has an underscore is known."""
    assert property_of(variable) == name
    assert variable_of(name) == variable


@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1), min_size=1, max_size=5))
def test_names_there_and_back(words: list[str]) -> None:
    """Every dotted property has one variable, and that variable is the property's."""
    name = ".".join(words)
    assert property_of(variable_of(name)) in (name, "log_level")


def test_overrides() -> None:
    """What is set by a variable wins over our defaults, in every client; other variables are passed over."""
    config = from_environment({**SERVERS, "KAFKA_LINGER_MS": "7", "PATH": "/bin"})
    assert config.producer()["linger.ms"] == "7"
    assert config.producer()["bootstrap.servers"] == "127.0.0.1:1"
    assert config.servers == "127.0.0.1:1"
    assert config.admin()["linger.ms"] == "7"


def test_transactions_end_soon() -> None:
    """A transactional producer is made as it is configured, is idempotent, and holds readers back for ten seconds."""
    properties = CONFIG.transactions("pipeline.work.9f")
    assert properties["transactional.id"] == "pipeline.work.9f"
    assert properties["transaction.timeout.ms"] == 10_000
    assert (properties["acks"], properties["enable.idempotence"]) == ("all", True)
    Producer(properties, logger=ClientLog()).close()


def test_variables_of_others() -> None:
    """Variables of Kafka's own scripts, and those that Kubernetes makes for a service named kafka, are not ours."""
    foreign = {
        "KAFKA_HEAP_OPTS": "-Xmx1g",
        "KAFKA_OPTS": "",
        "KAFKA_HOME": "/opt",
        "KAFKA_PORT": "tcp://10.0.0.1:9092",
        "KAFKA_PORT_9092_TCP_ADDR": "10.0.0.1",
        "KAFKA_SERVICE_HOST": "10.0.0.1",
        "KAFKA_SERVICE_PORT_CLIENTS": "9092",
        "KAFKA_BOOTSTRAP_SERVICE_PORT": "9092",
        "KAFKA_BOOTSTRAP_PORT": "tcp://10.0.0.1:9092",
    }
    assert from_environment({**SERVERS, **foreign}) == CONFIG


def test_address_is_needed() -> None:
    """Without an address there is one sentence that names the variable and the cure."""
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS is not set: start `pipeline up`"):
        from_environment({"KAFKA_BOOTSTRAP_SERVERS": ""})


@pytest.mark.parametrize("name", sorted(PROTECTED))
def test_protected(name: str) -> None:
    """A property that would break a promise cannot be set, and the error says why."""
    with pytest.raises(ConfigurationError, match=f"{variable_of(name)} cannot be set, because "):
        from_environment({**SERVERS, variable_of(name): "true"})


def test_secrets_are_not_shown() -> None:
    """No text that a configuration makes of itself holds a value; secret properties are known as such."""
    config = from_environment({**SERVERS, "KAFKA_SASL_PASSWORD": "hunter2"})
    assert "hunter2" not in f"{config} {config!r}"
    for name in ("sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"):
        assert is_secret(name)
    assert not is_secret("sasl.username")


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_defaults_are_accepted(protocol: GroupProtocol) -> None:
    """librdkafka knows every property that we set, for both group protocols."""
    Consumer(CONFIG.with_protocol(protocol).consumer("group")).close()
    Producer(CONFIG.producer()).close()
    AdminClient(CONFIG.admin())


@pytest.mark.parametrize(
    "overrides,broker,expected",
    [
        ({}, QUICK, "consumer"),
        ({}, {}, "classic"),
        ({}, {**QUICK, "group.coordinator.rebalance.protocols": "classic"}, "classic"),
        ({}, {**QUICK, "group.consumer.heartbeat.interval.ms": "5000"}, "classic"),
        ({"group.protocol": "classic"}, QUICK, "classic"),
        ({"group.protocol": "CONSUMER"}, {}, "consumer"),
        ({"session.timeout.ms": "9000"}, QUICK, "classic"),
    ],
)
def test_protocol(overrides: dict[str, str], broker: dict[str, str], expected: GroupProtocol) -> None:
    """KIP-848 is chosen where the broker has it with a quick heartbeat, unless something speaks against it."""
    assert choose_protocol(KafkaConfig(overrides), broker) == expected


def test_unknown_protocol() -> None:
    """A protocol that does not exist is an error that names the variable."""
    with pytest.raises(ConfigurationError, match="KAFKA_GROUP_PROTOCOL is 'newest': use consumer or classic"):
        choose_protocol(KafkaConfig({"group.protocol": "newest"}), {})


def test_chosen_protocol_wins() -> None:
    """The protocol that was chosen is the one a member speaks, whatever the letters of the override."""
    config = KafkaConfig({"group.protocol": "CONSUMER"}).with_protocol("consumer")
    assert config.consumer("group")["group.protocol"] == "consumer"


@pytest.mark.parametrize(
    "overrides,text,expected",
    [
        ({"foo.bar": "1"}, 'No such configuration property: "foo.bar"', "KAFKA_FOO_BAR cannot be used: No such"),
        ({"linger.ms": "x"}, 'Invalid value for configuration property "queue.buffering.max.ms"', "Check KAFKA_LINGER"),
        ({"sasl.password": "pw"}, 'Invalid value "pw" for property "sasl.password"', "its value is not accepted"),
        ({"sasl.password": "pw"}, "cannot use pw here", "a value is not accepted"),
    ],
)
def test_refused(overrides: dict[str, str], text: str, expected: str) -> None:
    """A refusal by librdkafka becomes a sentence that names the variable and never shows a secret."""
    error = str(refused(KafkaConfig(overrides), text))
    assert expected in error
    assert "pw" not in error
