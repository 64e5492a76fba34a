"""Whether a consumer's broker and topics are there: what `/readyz` says and what the log names while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException

from pipeline.broker.verdicts import forbidden, meaning
from pipeline.core.errors import Halt
from pipeline.telemetry import logs

ANSWER_SECONDS = 0.5
# A broker that was there is given longer: it may only be slow.
PATIENT_SECONDS = 2.0
AWAY_SECONDS = 1.0
MISSING_SECONDS = 5.0
# A broker that hangs closes no connection, and the client notices after a minute. So silence is broken by a question.
QUIET_SECONDS = 3.0


class _Topic(Protocol):
    """What metadata say of a topic."""

    @property
    def error(self) -> KafkaError | None:
        """Why there is nothing to say of it."""
        ...


class _Metadata(Protocol):
    """What a broker answers when it is asked for topics."""

    @property
    def topics(self) -> Mapping[str, _Topic]:
        """The topics by name."""
        ...


class Asks(Protocol):
    """The one call this module makes; every Kafka client has it."""

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> _Metadata:
        """Ask a broker for a topic's metadata; raises KafkaException where none answers."""
        ...


class Presence:
    """Knows whether a broker has answered lately and which subscribed topics are not there yet.

    librdkafka says when all brokers are down, but not when one is back, nor when one hangs, and a KIP-848 member never
    hears that a topic does not exist. So whoever waits for records asks (`probe`) while anything is open, and after
    every `QUIET_SECONDS` in which nothing was `heard`.
    """

    def __init__(self, group: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without any knowledge. `clock` is in seconds."""
        self.connected = False
        self.missing: tuple[str, ...] = ()
        self.heard = False
        self._log = logs.get(group=group)
        self.group = group
        self._topics: tuple[str, ...] = ()
        self._unseen: set[str] = set()
        self._clock = clock
        self._next = 0.0

    def expect(self, topics: Sequence[str]) -> None:
        """Begin to look for `topics`."""
        self._topics = tuple(topics)
        self._unseen = set(topics)

    def due(self) -> bool:
        """Whether it is time to ask."""
        now = self._clock()
        if now < self._next:
            return False
        if self.connected and not self._unseen and self.heard:
            self.heard = False
            self._next = now + QUIET_SECONDS
            return False
        return True

    def seen(self, topics: Iterable[str] = ()) -> None:
        """Note that a broker has answered, and of which topics it knows."""
        self.heard = True
        if not self.connected:
            self.connected = True
            self._log.info("connected to Kafka", action="broker_connected")
        self._unseen.difference_update(topics)
        self.missing = tuple(name for name in self.missing if name in self._unseen)

    def away(self, reason: str) -> None:
        """Note that no broker answers. To wait is all there is to do; the client tries again by itself."""
        if self.connected:
            self._log.warning(f"Kafka does not answer, waiting for it: {reason}", action="broker_away")
        self.connected = False
        self._next = self._clock() + AWAY_SECONDS

    def probe(self, client: Asks) -> Halt | None:
        """Ask for the topics that were not seen yet, or for all; blocks for `ANSWER_SECONDS` where no broker is there,
        for `PATIENT_SECONDS` where one was until now.

        Returns the verdict on a topic that may not be read.
        """
        names = sorted(self._unseen) or self._topics
        patience = PATIENT_SECONDS if self.connected else ANSWER_SECONDS
        try:
            answers = [client.list_topics(name, timeout=patience) for name in names]
        except KafkaException as error:
            self.away(str(error.args[0]))
            return None
        halt = self._judge({name: topic.error for answer in answers for name, topic in answer.topics.items()})
        self._next = self._clock() + (MISSING_SECONDS if self._unseen else QUIET_SECONDS)
        self.heard = False
        return halt

    def _judge(self, errors: Mapping[str, KafkaError | None]) -> Halt | None:
        self.seen(name for name, error in errors.items() if error is None)
        refused = {name: error for name, error in errors.items() if error is not None}
        for name, error in refused.items():
            if meaning(error) == "forbidden":
                return forbidden(error, self.group, name)
        if refused:
            missing = sorted(refused)
            self._unseen.update(missing)  # one that was there may have been deleted
            known, self.missing = self.missing, tuple(missing)
            if self.missing != known:  # that of an empty table may be missing for long
                told = f"waiting for topics that do not exist yet: {', '.join(missing)}"
                cure = "`pipeline topics create` makes ours"
                self._log.warning(f"{told}. {cure}", action="topic_missing", topics=missing)
        return None
