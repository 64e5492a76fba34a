"""Commits: without waiting, again after a failure, and for certain at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.broker.commits import LAST_COMMIT_SECONDS, RECOMMIT_SECONDS, UNHEARD_SECONDS, Commits
from pipeline.broker.presence import Presence
from pipeline.broker.wishes import Wishes
from pipeline.core.errors import Halt
from pipeline.core.record import Commit, Partition

A, B = Partition("t", 0), Partition("t", 1)
OWNED = {A, B}


@dataclass
class Client:
    """Keeps what is committed, and answers it at the next poll with the next of `answers`; None is success."""

    answers: list[int | None] = field(default_factory=list)
    refuses: KafkaException | None = None
    sent: list[dict[int, int]] = field(default_factory=list)
    heard: Callable[[KafkaError | None, list[TopicPartition]], None] | None = None
    _open: list[list[TopicPartition]] = field(default_factory=list)

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        """Take a commit."""
        assert asynchronous
        if self.refuses:
            raise self.refuses
        self.sent.append({part.partition: part.offset for part in offsets})
        self._open.append(offsets)

    def poll(self, timeout: float) -> None:
        """Answer one commit, if there is an answer for it."""
        if self._open and self.answers and self.heard:
            code = self.answers.pop(0)
            self.heard(None if code is None else KafkaError(code), self._open.pop(0))


@dataclass
class Part:
    """The answer for one partition, as only the client itself can make it."""

    topic: str
    partition: int
    offset: int
    error: KafkaError


class Setting:
    """Commits with everything around them."""

    def __init__(self) -> None:
        """Begin at 100 s."""
        self.now = 100.0
        self.fake, self.wishes, self.failures = Client(), Wishes(), list[Exception]()
        self.client = cast(Consumer, self.fake)
        self.presence = Presence("g")
        self.commits = Commits(self.wishes, self.presence, self.tell, self.failures.append, self.tick)
        self.fake.heard = self.commits.heard

    def tell(self, call: Callable[[], object]) -> None:
        """Run a call: this is the loop."""
        call()

    def tick(self) -> float:
        """Every look at the clock takes a millisecond."""
        self.now += 0.001
        return self.now

    def send(self, **offsets: int) -> None:
        """Wish for commits of partitions a and b, and send."""
        self.wishes.commit({{"a": A, "b": B}[name]: Commit(offset) for name, offset in offsets.items()})
        self.commits.send(self.client, OWNED)


@pytest.fixture
def setting() -> Setting:
    """A new setting."""
    return Setting()


def test_sent_once(setting: Setting) -> None:
    """What waits is sent in one request; with nothing waiting, or nothing owned, none is sent."""
    setting.send()
    setting.send(a=3, b=5)
    setting.send()
    setting.wishes.commit({Partition("other", 0): Commit(1)})
    setting.send()
    assert setting.fake.sent == [{0: 3, 1: 5}]


def test_success_shows_the_broker(setting: Setting) -> None:
    """An answered commit shows that the broker is there."""
    setting.fake.answers = [None]
    setting.send(a=3)
    assert not setting.presence.connected
    setting.fake.poll(0)
    assert setting.presence.connected


MOVED = [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE]


@pytest.mark.parametrize("code", [KafkaError.ILLEGAL_GENERATION, KafkaError.NETWORK_EXCEPTION, *MOVED])
def test_failure_is_sent_again_later(setting: Setting, code: int) -> None:
    """A failed commit is sent again, with what was wished for meanwhile, a second later."""
    setting.fake.answers = [code]
    setting.send(a=3, b=5)
    setting.fake.poll(0)
    setting.send(a=4)
    assert setting.fake.sent == [{0: 3, 1: 5}]
    setting.now += RECOMMIT_SECONDS
    setting.send()
    assert setting.fake.sent[1:] == [{0: 4, 1: 5}]
    assert setting.failures == []


def test_commit_that_nobody_answers(setting: Setting) -> None:
    """A commit whose answer does not come is sent again, though nothing newer is wished for; an answer ends that."""
    setting.send(a=3, b=5)
    setting.send(a=4)
    setting.send()
    assert setting.fake.sent == [{0: 3, 1: 5}]
    setting.now += UNHEARD_SECONDS
    setting.send()
    assert setting.fake.sent[1:] == [{0: 4, 1: 5}]
    setting.fake.answers = [None, None]
    for _ in range(2):
        setting.fake.poll(0)
    setting.now += UNHEARD_SECONDS
    setting.send()
    assert len(setting.fake.sent) == 2


def test_one_commit_of_a_partition_after_the_other(setting: Setting) -> None:
    """A newer commit waits for the older one's answer, which the client might try again after it; others do not."""
    setting.send(a=3)
    setting.send(a=4, b=5)
    setting.send(a=6)
    assert setting.fake.sent == [{0: 3}, {1: 5}]
    setting.fake.answers = [None]
    setting.fake.poll(0)
    setting.send()
    assert setting.fake.sent[2:] == [{0: 6}]
    assert setting.commits.reached == {A: 3}


def test_refusal_by_the_client(setting: Setting) -> None:
    """Where the client takes no commit at all it is as if it had failed."""
    setting.fake.refuses = KafkaException(KafkaError(KafkaError._STATE))
    setting.send(a=3)
    setting.fake.refuses = None
    setting.now += RECOMMIT_SECONDS
    setting.send()
    assert setting.fake.sent == [{0: 3}]


def test_failure_of_one_partition(setting: Setting) -> None:
    """A failure of a single partition counts, though the request as a whole succeeded."""
    setting.send(a=3)
    part = Part("t", 0, 3, KafkaError(KafkaError.NETWORK_EXCEPTION))
    setting.commits.heard(None, [cast(TopicPartition, part)])
    setting.now += RECOMMIT_SECONDS
    setting.send()
    assert setting.fake.sent == [{0: 3}, {0: 3}]


def test_group_that_may_not_be_used(setting: Setting) -> None:
    """A group that we may not use is a Halt."""
    setting.fake.answers = [KafkaError.GROUP_AUTHORIZATION_FAILED]
    setting.send(a=3)
    setting.fake.poll(0)
    assert isinstance(setting.failures[0], Halt)


def test_finish(setting: Setting) -> None:
    """The last commit is sent until it succeeds; answers to earlier ones are not taken for its own."""
    setting.fake.answers = [None, KafkaError.REBALANCE_IN_PROGRESS, None]
    setting.send(a=2)
    assert setting.commits.finish(setting.client, {A: Commit(3)})
    assert setting.fake.sent == [{0: 2}, {0: 3}, {0: 3}]


def test_finish_with_nothing(setting: Setting) -> None:
    """With nothing to commit there is nothing to wait for."""
    assert setting.commits.finish(setting.client, {})
    assert setting.fake.sent == []


def test_finish_without_a_broker(setting: Setting) -> None:
    """Without an answer the last commit is given up after a few seconds."""
    begin = setting.now
    assert not setting.commits.finish(setting.client, {A: Commit(3)})
    assert LAST_COMMIT_SECONDS <= setting.now - begin < LAST_COMMIT_SECONDS + 1
