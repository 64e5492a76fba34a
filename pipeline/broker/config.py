"""Configuration of the Kafka clients: our defaults, `KAFKA_*` overrides, and what nobody may override.

Any librdkafka property is `KAFKA_` and its name in capitals, dots as underscores: KAFKA_SECURITY_PROTOCOL is
`security.protocol`. Nothing here is opened or sent; the values are for the clients of this package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.core.errors import ConfigurationError
from pipeline.core.limits import MAX_FOREIGN_COPY_BYTES

PREFIX = "KAFKA_"
SERVERS = "bootstrap.servers"

Value = str | int | float | bool

GroupProtocol = Literal["consumer", "classic"]
"""How members of a group agree: `consumer` is KIP-848, `classic` is what every broker has."""

# Variables that Kafka's own scripts, its images and Kubernetes (for a service whose name begins with "kafka") set.
_FOREIGN = re.compile(
    r"KAFKA_(?:HOME|JMX_PORT|(?:\w+_)?OPTS|(?:\w+_)?SERVICE_(?:HOST|PORT)(?:_\w+)?|(?:\w+_)?PORT(?:_\d+_\w+)?)"
)
_SECRET = re.compile(r"password|secret|\.pem$|oauthbearer\.config|jaas|token", re.IGNORECASE)
_NAMES_WITH_UNDERSCORE = {"log.level": "log_level"}

_OURS = "the pipeline commits records when they are settled, and reads a new group's topics from their beginning"
_SAFE = "nothing accepted may be lost or reordered"
PROTECTED: Mapping[str, str] = {
    "enable.auto.commit": _OURS,
    "enable.auto.offset.store": _OURS,
    "auto.commit.interval.ms": _OURS,
    "auto.offset.reset": _OURS,
    "isolation.level": "records of aborted transactions must not be read",
    "group.id": "each stage has its own group",
    "group.instance.id": "several consumers of one process would share it",
    "partition.assignment.strategy": "partitions must move one by one",
    "enable.partition.eof": "the adapter does not expect these events",
    "enable.idempotence": _SAFE,
    "acks": _SAFE,
    "request.required.acks": _SAFE,
    "max.in.flight": _SAFE,
    "max.in.flight.requests.per.connection": _SAFE,
    "message.timeout.ms": "a process never gives up on its broker",
    "delivery.timeout.ms": "a process never gives up on its broker",
    "partitioner": "keys must go where Java clients and Debezium send them",
    "transactional.id": "transactions are the pipeline's business",
    "log.queue": "the adapter takes the log lines from the queue",
}
"""Properties that cannot be overridden, and why."""

_SHARED: Mapping[str, Value] = {
    "client.id": "pipeline",
    # Waiting ten seconds after an outage of ten seconds helps nobody.
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 2000,
    # How soon new topics and partitions are seen; the default is five minutes.
    "topic.metadata.refresh.interval.ms": 5000,
    "socket.keepalive.enable": True,
}
_CONSUMER: Mapping[str, Value] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # The adapter says itself where a partition starts. What is left are offsets out of range: an error, not a skip.
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    # The default of 1000 stalls a fast consumer whose queue has run empty between two fetches.
    "fetch.queue.backoff.ms": 5,
    # Prefetched records are thrown away by a pause and fetched again: keep few.
    "queued.max.messages.kbytes": 1024,
    # The first counts payload only, so that small records would be prefetched by the ten thousand; and one answer to a
    # fetch holds so much of each partition (a larger record comes all the same, KIP-74). A backlog of a million records
    # then costs a worker 5 MB instead of 27 (measured).
    "queued.min.messages": 5_000,
    "fetch.message.max.bytes": 262_144,
}
_CLASSIC: Mapping[str, Value] = {
    "group.protocol": "classic",
    "partition.assignment.strategy": "cooperative-sticky",
    # A member that joins waits for the others' heartbeats: 1.0 s instead of 3.1 s at the default of 3 s.
    "heartbeat.interval.ms": 500,
    # How long a killed worker's partitions stand still. The client's own thread sends the heartbeats, so a busy
    # process is not taken for a dead one.
    "session.timeout.ms": 10_000,
}
# `range` shares out each topic by itself, and gives a member the same numbers of every topic. The default, `uniform`,
# counts partitions of all topics together: a new member can get nothing but empty retry topics while one lane's whole
# backlog stays with the old member.
_KIP_848: Mapping[str, Value] = {
    "group.protocol": "consumer",
    "group.remote.assignor": "range",
    # How long the coordinator waits for a member to give partitions back before it puts it out; it then joins anew.
    # librdkafka 2.16 does not ask again for an assignment whose heartbeat was answered too late (after one interval):
    # such a member would keep others waiting for the default of five minutes. The client is polled all the time.
    "max.poll.interval.ms": 60_000,
}
_PRODUCER: Mapping[str, Value] = {
    "enable.idempotence": True,
    "acks": "all",
    "message.timeout.ms": 0,
    "partitioner": "murmur2_random",
    # Not even half a millisecond: librdkafka's timer makes 1.6 ms a hop of it.
    "linger.ms": 0,
    # The topic's own limit decides. Batches stay below the broker's default limit, as `batch.size` says.
    "message.max.bytes": MAX_FOREIGN_COPY_BYTES,
    "batch.size": 1_000_000,
    # How long a topic that was just created may be unknown to some broker.
    "topic.metadata.propagation.max.ms": 10_000,
}

# A transaction is open for milliseconds only. When its process is killed, readers of its topics and the next owner of
# its partitions wait for this long, and for the broker's next look (`transaction.abort.timed.out.transaction.cleanup.
# interval.ms`, 10 s). librdkafka wants no other timeout to be longer.
_TRANSACTION_MS = 10_000
_TRANSACTIONS: Mapping[str, Value] = {
    "transaction.timeout.ms": _TRANSACTION_MS,
    "message.timeout.ms": _TRANSACTION_MS,
    "socket.timeout.ms": _TRANSACTION_MS,
    # A transaction that follows another at once meets CONCURRENT_TRANSACTIONS; the default waits 100 ms then.
    "retry.backoff.ms": 5,
}

# What only a classic member may say; librdkafka refuses it beside group.protocol=consumer.
_CLASSIC_ONLY = {"heartbeat.interval.ms", "session.timeout.ms", "group.protocol.type"}
# A member hears of a rebalance with its next heartbeat, which under KIP-848 the broker sets; its default is 5 s.
_QUICK_HEARTBEAT_MS = 1000


def property_of(variable: str) -> str:
    """Return the librdkafka property that a variable sets: KAFKA_SASL_PASSWORD is `sasl.password`."""
    name = variable.removeprefix(PREFIX).lower().replace("_", ".")
    return _NAMES_WITH_UNDERSCORE.get(name, name)


def variable_of(name: str) -> str:
    """Return the variable that sets a librdkafka property."""
    return PREFIX + name.upper().replace(".", "_")


def is_secret(name: str) -> bool:
    """Whether a property's value must not be shown."""
    return _SECRET.search(name) is not None


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Where the cluster is and how to speak to it. Never shows its values: some are secrets."""

    overrides: Mapping[str, str] = field(repr=False)
    group_protocol: GroupProtocol = "classic"

    @property
    def servers(self) -> str:
        """The addresses that clients ask first."""
        return self.overrides[SERVERS]

    def with_protocol(self, protocol: GroupProtocol) -> KafkaConfig:
        """Return the same configuration for groups of `protocol`."""
        return replace(self, group_protocol=protocol)

    def consumer(self, group: str) -> dict[str, Value]:
        """Return the properties of a member of `group`."""
        protocol = _KIP_848 if self.group_protocol == "consumer" else _CLASSIC
        return self._with({"group.id": group, **_SHARED, **_CONSUMER, **protocol})

    def reader(self, name: str, *, committed: bool = False) -> dict[str, Value]:
        """Return the properties of a client that reads without a group and commits nothing.

        It sees acknowledged records behind an open transaction too, unless it is to see what is `committed` only.
        `name` is seen in the broker's log only.
        """
        isolation = "read_committed" if committed else "read_uncommitted"
        own: dict[str, Value] = {**_CLASSIC, "isolation.level": isolation}
        return self._with({"group.id": name, **_SHARED, **_CONSUMER, **own})

    def producer(self) -> dict[str, Value]:
        """Return the properties of a producer."""
        return self._with({**_SHARED, **_PRODUCER})

    def transactions(self, transactional_id: str) -> dict[str, Value]:
        """Return the properties of a transactional producer."""
        return {**self._with({**_SHARED, **_PRODUCER, **_TRANSACTIONS}), "transactional.id": transactional_id}

    def admin(self) -> dict[str, Value]:
        """Return the properties of an admin client."""
        return self._with(_SHARED)

    def _with(self, defaults: Mapping[str, Value]) -> dict[str, Value]:
        overrides = {name: value for name, value in self.overrides.items() if name != "group.protocol"}
        return {**defaults, **overrides}


def from_environment(environ: Mapping[str, str]) -> KafkaConfig:
    """Read the configuration from `KAFKA_*` variables; others are passed over.

    Raises ConfigurationError where the broker's address is missing or a variable would break a promise. A property
    that librdkafka does not know is found when the first client is opened (`refused` names its variable).
    """
    overrides: dict[str, str] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or _FOREIGN.fullmatch(variable):
            continue
        name = property_of(variable)
        if name in PROTECTED:
            raise ConfigurationError(f"{variable} cannot be set, because {PROTECTED[name]}: remove it")
        overrides[name] = text
    if not overrides.get(SERVERS):
        raise ConfigurationError(
            f"{variable_of(SERVERS)} is not set: start `pipeline up` in this folder, or set it to host:port of a broker"
        )
    return KafkaConfig(overrides)


def choose_protocol(config: KafkaConfig, broker: Mapping[str, str]) -> GroupProtocol:
    """Choose how groups agree, from a broker's own configuration (`describe_configs`; empty where it is not told).

    KIP-848 where the broker has it and its heartbeat is quick, since a moved partition stands still for about one
    heartbeat; else classic. What was set by hand wins.
    """
    wanted = config.overrides.get("group.protocol", "").lower()
    if wanted in ("consumer", "classic"):
        return "consumer" if wanted == "consumer" else "classic"
    if wanted:
        raise ConfigurationError(f"{variable_of('group.protocol')} is {wanted!r}: use consumer or classic")
    if _CLASSIC_ONLY & config.overrides.keys():
        return "classic"
    protocols = broker.get("group.coordinator.rebalance.protocols", "").split(",")
    heartbeat = broker.get("group.consumer.heartbeat.interval.ms", "")
    quick = heartbeat.isdigit() and int(heartbeat) <= _QUICK_HEARTBEAT_MS
    return "consumer" if quick and "consumer" in [name.strip() for name in protocols] else "classic"


def refused(config: KafkaConfig, text: str) -> ConfigurationError:
    """Turn librdkafka's refusal of a property or value into a sentence that names the variable, without secrets."""
    named = re.search(r'property:? "([^"]+)"', text)
    name = named.group(1) if named else ""
    if name in config.overrides:
        why = "its value is not accepted" if is_secret(name) else text.strip()
        return ConfigurationError(f"{variable_of(name)} cannot be used: {why}. Correct or remove it")
    # librdkafka often speaks of another name of the same property, or of several at once.
    given = ", ".join(sorted(variable_of(key) for key in config.overrides))
    secret = any(is_secret(key) and value and value in text for key, value in config.overrides.items())
    why = "a value is not accepted" if secret else text.strip()
    return ConfigurationError(f"the Kafka client cannot be configured: {why}. Check {given}")
