"""Topics of one name are told apart."""

from __future__ import annotations

import pytest

from pipeline.broker.identity import LOOK_SECONDS, Identity, unstamped
from pipeline.core.offset_map import MAX_CHARACTERS
from pipeline.core.record import Commit, Partition

A, B = Partition("t", 0), Partition("u", 0)
OLD, NEW, OTHER = "o" * 22, "n" * 21 + "_", "-" * 22


class Cluster:
    """The ids of topics, and the time."""

    def __init__(self) -> None:
        """Begin with two topics."""
        self.ids = {"t": OLD, "u": OTHER}
        self.now = 100.0
        self.identity = Identity(
            lambda topics: {name: self.ids[name] for name in topics if name in self.ids}, self.tick
        )

    def tick(self) -> float:
        """The time."""
        return self.now


@pytest.mark.parametrize("metadata", ["", "lep1:zabc", "a/b", "two\nlines"])
def test_a_stamp_is_read_as_it_was_written(metadata: str) -> None:
    """What a commit says besides comes back whole, and its topic is known from it."""
    cluster = Cluster()
    assert cluster.identity.begin(A, "") == ""
    assert cluster.identity.look() == []
    stamped = cluster.identity.stamped({A: Commit(5, metadata)})[A]
    assert stamped == Commit(5, f"{metadata}/{OLD}")
    assert cluster.identity.begin(A, stamped.metadata) == metadata
    assert unstamped(stamped.metadata) == metadata


def test_offsets_of_a_topic_that_is_no_more() -> None:
    """A partition whose last commit is of another topic of its name is stale; it stays so until it has begun anew."""
    cluster = Cluster()
    cluster.identity.begin(A, f"lep1:r/{NEW}")
    cluster.identity.begin(B, f"/{OTHER}")
    assert cluster.identity.look() == [A]
    assert cluster.identity.look() == [A]
    cluster.identity.begin(A, "")
    assert cluster.identity.look() == []


def test_a_topic_made_again_while_it_is_read() -> None:
    """It is noticed at the next look; a topic that is only gone is not another one."""
    cluster = Cluster()
    cluster.identity.begin(A, "")
    cluster.identity.look()
    del cluster.ids["t"]
    assert cluster.identity.look() == []
    cluster.ids["t"] = NEW
    assert cluster.identity.look() == [A]
    assert cluster.identity.stamped({A: Commit(1)}) == {A: Commit(1, f"/{OLD}")}


def test_looks_come_at_each_arrival_and_every_few_seconds() -> None:
    """A new partition is looked at at once; with none there is nothing to look at."""
    cluster = Cluster()
    assert not cluster.identity.due()
    cluster.identity.begin(A, "")
    assert cluster.identity.due()
    cluster.identity.look()
    assert not cluster.identity.due()
    cluster.now += LOOK_SECONDS
    assert cluster.identity.due()
    cluster.identity.forget([A])
    assert not cluster.identity.due()


def test_a_map_too_long_to_be_kept_with_its_stamp_is_left_out() -> None:
    """Its records are repeated; without the stamp records of another topic could be skipped."""
    cluster = Cluster()
    cluster.identity.begin(A, "")
    cluster.identity.look()
    fits = "x" * (MAX_CHARACTERS - 23)
    assert cluster.identity.stamped({A: Commit(1, fits)})[A].metadata == f"{fits}/{OLD}"
    assert cluster.identity.stamped({A: Commit(1, fits + "x")})[A].metadata == f"/{OLD}"


def test_without_ids_all_is_left_as_it_is() -> None:
    """Where nobody tells ids nothing is stamped and nothing is stale; a stamp found is still not handed on."""
    identity = Identity(None)
    assert identity.begin(A, f"lep1:r/{OLD}") == "lep1:r"
    assert (identity.due(), identity.look()) == (False, [])
    assert identity.stamped({B: Commit(3, "m")}) == {B: Commit(3, "m")}
