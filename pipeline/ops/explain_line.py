"""Where a record stands in the line of the group that reads it: settled, or waiting, and behind how many. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.core import offset_map
from pipeline.core.offset_map import NOTHING, Progress, Unreadable
from pipeline.core.record import Commit, Partition, Position


@dataclass(frozen=True, slots=True)
class Group:
    """Where a stage's group stands. `begins` is the oldest offset of each partition; `members` None is not known."""

    commits: Mapping[Partition, Commit] = field(default_factory=dict)
    begins: Mapping[Partition, int] = field(default_factory=dict)
    members: int | None = None


@dataclass(frozen=True, slots=True)
class InLine:
    """A place in the line: `before` records are not settled before it; `handed_until` (epoch seconds) another process
    finishes it, 0 where none does."""

    before: int
    handed_until: int = 0


def place_of(position: Position, group: Group) -> InLine | None:
    """Find a record's place; None where it is settled."""
    partition = Partition(position.topic, position.partition)
    commit = group.commits.get(partition)
    frontier = group.begins.get(partition, 0) if commit is None else commit.offset
    if position.offset < frontier:
        return None
    progress = _progress(commit)
    if any(position.offset in one for one in progress.settled):
        return None
    before = position.offset - frontier - _below(progress.settled, position.offset)
    return InLine(max(before, 0), progress.until if position.offset in progress.handed else 0)


def _progress(commit: Commit | None) -> Progress:
    if commit is None:
        return NOTHING
    try:
        return offset_map.read(commit.offset, commit.metadata)
    except Unreadable:
        return NOTHING


def _below(settled: Iterable[range], offset: int) -> int:
    return sum(min(one.stop, offset) - one.start for one in settled if one.start < offset)
