"""Wishes between two fetches: what is carried out of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.wishes import Wishes
from pipeline.core.record import Commit, Partition

A, B, C = (Partition("topic", number) for number in range(3))
PARTITIONS = st.sampled_from([A, B, C])


def test_last_pause_or_resume_holds() -> None:
    """Only the last wish for a partition counts, and only where it changes something."""
    wishes = Wishes()
    wishes.pause([A, B, C])
    wishes.resume([A, B])
    wishes.pause([A])
    assert wishes.take_pauses({A, B, C}, {C}) == ([A], [])
    assert wishes.take_pauses({A, B, C}, {A, C}) == ([], [])


def test_resume_of_what_is_paused() -> None:
    """A paused partition is resumed; one that is not owned is passed over."""
    wishes = Wishes()
    wishes.resume([A, B])
    wishes.pause([C])
    assert wishes.take_pauses({A}, {A, B}) == ([], [A])


def test_newest_commit_is_sent() -> None:
    """Of several offsets for a partition the newest wish is sent, once; what is not owned is dropped."""
    wishes = Wishes()
    wishes.commit({A: Commit(3), B: Commit(9)})
    wishes.commit({A: Commit(5), C: Commit(1)})
    assert [wishes.commits, wishes.take_commits({A, B}), wishes.commits] == [True, {A: Commit(5), B: Commit(9)}, False]
    assert wishes.take_commits({A, B, C}) == {}


def test_failed_commit_is_sent_again() -> None:
    """What failed is sent again, and gives way to a newer wish."""
    wishes = Wishes()
    wishes.commit({A: Commit(5), B: Commit(9)})
    wishes.take_commits({A, B})
    wishes.commit({A: Commit(7)})
    wishes.recommit({A: 5, B: 9})
    assert wishes.take_commits({A, B}) == {A: Commit(7), B: Commit(9)}


def test_failed_commit_never_overtakes() -> None:
    """A failure that is heard after something newer was sent does not take the group back."""
    wishes = Wishes()
    wishes.commit({A: Commit(5)})
    wishes.take_commits({A})
    wishes.commit({A: Commit(8)})
    wishes.take_commits({A})
    wishes.recommit({A: 5})
    assert wishes.take_commits({A}) == {}


def test_forgotten_partitions() -> None:
    """A partition that leaves takes its wishes along; the offset that still waited is handed back."""
    wishes = Wishes()
    wishes.pause([A, B])
    wishes.commit({A: Commit(5)})
    assert wishes.forget([A, C]) == {A: Commit(5)}
    assert wishes.take_pauses({A, B}, set()) == ([B], [])
    assert wishes.take_commits({A}) == {}
    wishes.recommit({A: 5})
    assert wishes.take_commits({A}) == {}


@given(st.lists(st.tuples(st.booleans(), st.sets(PARTITIONS)), max_size=12), st.sets(PARTITIONS))
def test_pauses_are_those_of_one_by_one(steps: list[tuple[bool, set[Partition]]], paused: set[Partition]) -> None:
    """What is paused in the end is the same as if every wish had been carried out in turn."""
    wishes, expected = Wishes(), set(paused)
    for pause, names in steps:
        if pause:
            wishes.pause(names)
            expected |= names
        else:
            wishes.resume(names)
            expected -= names
    to_pause, to_resume = wishes.take_pauses({A, B, C}, paused)
    assert (paused | set(to_pause)) - set(to_resume) == expected
    assert not set(to_pause) & paused
    assert set(to_resume) <= paused
