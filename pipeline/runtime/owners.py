"""The owners of handed-over calls: whether they are still there to finish them (design section 6.4).

A member is missing from its group only after it has left, which it does when all its calls are finished or cut and
their answers acknowledged, or after it was silent for the group's session timeout. Then it is dead, or stands still so
that it has lost its other partitions, too; should it go on, its call overlaps the next one, as around any such owner.
Who is there may only be slow: its word is kept, however long its call takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from pipeline.core.offset_map import mark
from pipeline.core.retry import describe
from pipeline.telemetry import logs

LOOK_SECONDS = 2.0
"""How often is asked who is there, while anybody is waited for."""

Members = Callable[[str], Awaitable[Collection[str]]]
"""Names the members of a group as its coordinator knows them; nobody where that cannot be said for certain."""


class Owners:
    """Knows who of a group is gone. `name` tells how the group calls this member; without `members` nobody ever is."""

    def __init__(self, group: str, name: Callable[[], str], members: Members | None) -> None:
        """Know nobody yet."""
        self._group = group
        self._name = name
        self._members = members

    def me(self) -> int | None:
        """Return this member's mark; None while it has none."""
        name = self._name()
        return mark(name) if name else None

    async def gone(self, owners: Collection[int]) -> set[int]:
        """Return those of `owners`, who were there once, that are not in the group any more."""
        if self._members is None or not owners:
            return set()
        try:
            names = await self._members(self._group)
        except Exception as error:
            logs.get().debug(f"{self._group}: who its members are is not known: {describe(error)}", action="members")
            return set()
        # Whoever does not know us may not know the others either: a coordinator that has just moved, or we are out.
        known = self._name() in names
        return set(owners).difference(map(mark, names)) if known else set()
