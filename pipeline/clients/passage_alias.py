"""The alias of the index: its collections are `<alias>-<number>`, and the alias names the one that is live.

A *closing* alias (`<alias>-closing-<owner>`) names the collection that is about to become live. While there is one
nobody may say that anything is in the index, so all that was ever said to be is in the live collection, and in topics.
The switch is one rename of the closing alias to the live one: Qdrant carries out the actions of a request one after the
other, and keeps what came before one that fails, but a rename is one action. Whoever takes the closing alias away has
made the switch impossible.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from pipeline.clients.passage_collection import Collection
from pipeline.clients.shared import Shared
from pipeline.core.errors import Halt

_OWNER = r"[0-9a-f]{12}"


@dataclass(frozen=True, slots=True)
class Live:
    """What the aliases say: the live collection, None before there is any, and the aliases that are closing."""

    collection: str | None
    closing: tuple[str, ...] = ()


class Aliases:
    """Looks at the aliases of one index; `place` stands for all of its collections, and has the alias for its name."""

    def __init__(self, place: Collection) -> None:
        """Know nothing yet."""
        self.place = place
        self.alias = place.name
        self.seen = Live(None)
        self._making = asyncio.Lock()
        self._looks = Shared(self._look)

    async def look(self) -> Live:
        """Return a look that was begun after the call of this; who calls at once shares one, also one that failed."""
        return await self._looks.answer()

    async def drain(self) -> None:
        """Wait for the looks under way."""
        await self._looks.drain()

    async def first(self) -> Live:
        """Make the first collection and the alias, where there is neither; several processes may do so at once.

        Raises Halt where collections are there that the alias should name, or one that has its name.
        """
        async with self._making:
            if self.seen.collection is None:
                await self._make()
            return self.seen

    async def numbers(self) -> list[int]:
        """List the numbers of the collections that are there, in order."""
        pattern = re.compile(rf"{re.escape(self.alias)}-([1-9][0-9]*)")
        found = (pattern.fullmatch(name) for name in await self._names())
        return sorted(int(one[1]) for one in found if one)

    async def update(self, actions: Sequence[models.AliasOperations]) -> None:
        """Change aliases by one request."""
        await self.place.run(self.place.client.update_collection_aliases(list(actions)))

    def name_of(self, number: int) -> str:
        """Name a collection."""
        return f"{self.alias}-{number}"

    def closing_of(self, owner: str) -> str:
        """Name the closing alias of who rebuilds; `owner` is twelve hexadecimal digits."""
        return f"{self.alias}-closing-{owner}"

    async def _look(self) -> Live:
        found = await self.place.run(self.place.client.get_aliases())
        named = {one.alias_name: one.collection_name for one in found.aliases}
        pattern = re.compile(rf"{re.escape(self.alias)}-closing-{_OWNER}")
        self.seen = Live(named.get(self.alias), tuple(sorted(name for name in named if pattern.fullmatch(name))))
        return self.seen

    async def _make(self) -> None:
        await self._free()
        await self.place.measure()  # once for all collections
        first, second = self.name_of(1), self.name_of(2)
        await self.place.named(first, makes=True).prepare()
        # Before there is an alias there is no second collection, and once it is gone, so is the first: so a process
        # that comes by only now, when all that is over, fails at the first action or at the last.
        guard = [created(second, first), deleted(second), created(self.alias, first)]
        try:
            await self.update(guard)
        except (UnexpectedResponse, ValueError):
            if (await self.look()).collection is None:
                raise
        await self.look()

    async def _free(self) -> None:
        if self.alias in await self._names():
            reason = (
                f"there is a collection named {self.alias!r}, as older releases made it, and now an alias has that "
                "name: delete that collection; a new one is then filled from the topics, and the rest by "
                "`pipeline index audit --fix`"
            )
            raise Halt(reason, code="index_refused")
        late = [number for number in await self.numbers() if number > 1]
        # Another process may have got on since the look.
        if late and (await self.look()).collection is None:
            names = ", ".join(map(self.name_of, late))
            reason = f"there are collections ({names}), but no alias {self.alias!r} that names the live one: make it"
            raise Halt(reason, code="index_refused")

    async def _names(self) -> list[str]:
        found = await self.place.run(self.place.client.get_collections())
        return [one.name for one in found.collections]


def renamed(old: str, new: str) -> models.AliasOperations:
    """Rename an alias, whatever the new name stood for."""
    return models.RenameAliasOperation(rename_alias=models.RenameAlias(old_alias_name=old, new_alias_name=new))


def created(alias: str, collection: str) -> models.AliasOperations:
    """Let an alias name a collection, whatever it named before."""
    named = models.CreateAlias(collection_name=collection, alias_name=alias)
    return models.CreateAliasOperation(create_alias=named)


def deleted(alias: str) -> models.AliasOperations:
    """Take an alias away; one that is not there is no error."""
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
