"""What a consumer's owner has asked for and the client has not been told yet. Pure: no client, no time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pipeline.core.record import Commit, Partition


class Wishes:
    """Pauses, resumes and commits between two fetches. Of several for one partition the last one holds.

    To pause and resume in one breath is to do nothing: the client would throw its prefetched records away for it.
    """

    def __init__(self) -> None:
        """Wish for nothing."""
        self._pauses: dict[Partition, bool] = {}
        self._commits: dict[Partition, Commit] = {}
        self._sent: dict[Partition, Commit] = {}

    @property
    def commits(self) -> bool:
        """Whether an offset waits to be committed."""
        return bool(self._commits)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Ask to stop fetching."""
        self._pauses.update(dict.fromkeys(partitions, True))

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Ask to go on fetching."""
        self._pauses.update(dict.fromkeys(partitions, False))

    def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        """Ask to commit; a newer wish for a partition replaces an older one."""
        self._commits.update(offsets)

    def recommit(self, offsets: Mapping[Partition, int]) -> None:
        """Ask once more for what was sent and failed, unless something newer was sent or asked for since."""
        sent = self._sent
        failed = {name: sent[name] for name, offset in offsets.items() if name in sent and sent[name].offset == offset}
        self._commits = {**failed, **self._commits}

    def take_pauses(
        self, owned: Collection[Partition], paused: Collection[Partition]
    ) -> tuple[list[Partition], list[Partition]]:
        """Return which partitions to pause and which to resume, given what is owned and what is paused already."""
        if not self._pauses:
            return [], []
        wanted, self._pauses = self._pauses, {}
        change = {name: pause for name, pause in wanted.items() if name in owned and pause != (name in paused)}
        return [name for name, pause in change.items() if pause], [name for name, pause in change.items() if not pause]

    def take_commits(
        self, owned: Collection[Partition], unheard: Collection[Partition] = ()
    ) -> dict[Partition, Commit]:
        """Return what to send now, and keep what is for `unheard` partitions for later.

        Wishes for partitions that are not owned are dropped: the broker would obey.
        """
        wanted, self._commits = self._commits, {}
        taken = {name: offset for name, offset in wanted.items() if name in owned}
        if unheard:
            self._commits = {name: taken.pop(name) for name in [*taken] if name in unheard}
        self._sent.update(taken)
        return taken

    def forget(self, partitions: Iterable[Partition]) -> dict[Partition, Commit]:
        """Drop all wishes for partitions that are leaving; returns the offsets that still waited to be committed."""
        waiting: dict[Partition, Commit] = {}
        for name in partitions:
            self._pauses.pop(name, None)
            self._sent.pop(name, None)
            offset = self._commits.pop(name, None)
            if offset is not None:
                waiting[name] = offset
        return waiting
