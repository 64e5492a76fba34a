"""How groups in memory share partitions."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.memory_group import Group, balance
from pipeline.core.record import Partition

TOPICS = ("a", "b")
NAME = st.builds(Partition, st.sampled_from(TOPICS), st.integers(0, 9))
NAMES = st.sets(NAME)
MEMBERS = st.dictionaries(st.integers(0, 5), st.sets(st.sampled_from(TOPICS), min_size=1), max_size=4)


@given(NAMES, MEMBERS, st.dictionaries(NAME, st.integers(0, 5)))
def test_balance(names: set[Partition], members: dict[int, set[str]], owners: dict[Partition, int]) -> None:
    """Every partition that somebody reads has one owner who reads it; no share could be evened out any further."""
    shared = balance(names, members, owners)
    assert shared.keys() == {name for name in names if any(name.topic in topics for topics in members.values())}
    assert all(name.topic in members[member] for name, member in shared.items())
    sizes = {member: sum(owner == member for owner in shared.values()) for member in members}
    for name, member in shared.items():
        for other, topics in members.items():
            assert name.topic not in topics or sizes[member] - sizes[other] < 2


@given(NAMES, MEMBERS)
def test_balance_is_stable(names: set[Partition], members: dict[int, set[str]]) -> None:
    """Sharing out again what is shared out moves nothing."""
    shared = balance(names, members, {})
    assert balance(names, members, shared) == shared


@given(st.integers(1, 12), st.integers(1, 4))
def test_a_newcomer_moves_only_its_share(count: int, present: int) -> None:
    """When a member joins, only the partitions that it gets change their owner."""
    names = [Partition("a", number) for number in range(count)]
    members: dict[int, Collection[str]] = {number: {"a"} for number in range(present)}
    before = balance(names, members, {})
    after = balance(names, {**members, present: {"a"}}, before)
    assert all(after[name] in (before[name], present) for name in names)
    assert sum(owner == present for owner in after.values()) == count // (present + 1)


def test_partitions_move_one_by_one() -> None:
    """A new owner gets a partition only after the old one has given it up, and both are woken for it."""
    woken: list[int] = []
    group = Group(lambda: [Partition("a", number) for number in range(2)])
    group.join(1, {"a"}, lambda: woken.append(1))
    assert group.take(1) == [Partition("a", 0), Partition("a", 1)]
    group.join(2, {"a"}, lambda: woken.append(2))
    assert group.take(2) == []
    (moving,) = group.to_give(1)
    woken.clear()
    group.give([moving])
    assert woken == [1, 2]
    assert group.take(2) == [moving]
    group.leave(1)
    assert len(group.take(2)) == 1
    assert group.to_give(2) == []
