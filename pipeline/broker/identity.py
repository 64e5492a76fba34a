"""Which topic an offset is of. A topic that is deleted and made again has its old name, and none of its old records.

Kafka forgets a group's offsets with the topic, but a member that commits a moment later commits an old offset to the
new topic (seen with KIP-848: the commit at the revocation), and everything below it is never read. So each commit ends
in the id of the topic that its offset is of (KIP-516), and a partition whose offset is another topic's begins anew.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from pipeline.core.offset_map import MAX_CHARACTERS
from pipeline.core.record import Commit, Partition

LOOK_SECONDS = 5.0

_STAMP = re.compile(r"(?s)(.*)/([A-Za-z0-9_-]{22})")  # no offset map holds a slash

Ids = Callable[[Sequence[str]], Mapping[str, str]]
"""Ask the cluster for the ids of topics; those of which it does not say them are left out. May block."""


class Identity:
    """Knows of each partition which topic its offsets are of. Without `ids` nothing is stamped and nothing begins anew.

    Commits without a stamp, as other programs make them, are believed.
    """

    def __init__(self, ids: Ids | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet. `clock` is in seconds."""
        self._ids = ids
        self._clock = clock
        self._of: dict[Partition, str | None] = {}
        self._look_again = 0.0

    def due(self) -> bool:
        """Whether it is time to look."""
        return bool(self._of) and self._ids is not None and self._clock() >= self._look_again

    def begin(self, name: Partition, metadata: str) -> str:
        """Take a partition over; returns what its last commit said besides."""
        found = _STAMP.fullmatch(metadata)
        self._of[name] = found[2] if found else None
        self._look_again = 0.0
        return unstamped(metadata)

    def forget(self, names: Collection[Partition]) -> None:
        """Let partitions go."""
        for name in names:
            self._of.pop(name, None)

    def stamped(self, offsets: Mapping[Partition, Commit]) -> dict[Partition, Commit]:
        """Return commits as they are sent. A map too long to be kept with a stamp is left out: its records repeat."""
        return {name: _stamped(commit, self._of.get(name)) for name, commit in offsets.items()}

    def look(self) -> list[Partition]:
        """Ask for the ids; returns the partitions whose offsets are of a topic that is no more. Blocks."""
        self._look_again = self._clock() + LOOK_SECONDS
        if self._ids is None:
            return []
        known = self._ids(sorted({name.topic for name in self._of}))
        stale = []
        for name, believed in list(self._of.items()):
            current = known.get(name.topic)
            if believed is None:
                self._of[name] = current
            elif current is not None and current != believed:
                stale.append(name)
        return stale


def unstamped(metadata: str) -> str:
    """Return what a commit says without the id of the topic."""
    found = _STAMP.fullmatch(metadata)
    return found[1] if found else metadata


def _stamped(commit: Commit, topic: str | None) -> Commit:
    if topic is None:
        return commit
    text = f"{commit.metadata}/{topic}"
    return Commit(commit.offset, text if len(text) <= MAX_CHARACTERS else f"/{topic}")
