"""A rebuild as the index knows it: the new collection, who owns it, and the switch.

Whose the new collection is, is in its metadata: `rebuild_owner`, a word of its own for each run, written by who begins,
`rebuild_beat`, which the owner alone changes every other second, and `rebuild_state`. A run that finds a collection
whose beat changes leaves it alone; one whose beat stands still was left by a run that was killed, and is gone on with.
No promise rests on that: two runs at once would only do the work twice, since each switches by an alias of its own,
which the other takes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client.http.exceptions import ApiException

from pipeline.clients.passage_alias import Aliases, created, deleted, renamed
from pipeline.clients.passage_collection import ABOUT, Collection
from pipeline.clients.passage_copy import PassageCopy
from pipeline.clients.passage_live import Passages
from pipeline.clients.passage_status import PassageCensus
from pipeline.clients.qdrant_failures import translated
from pipeline.core.errors import ConfigurationError, Halt, Outcome

OWNER, BEAT, STATE = "rebuild_owner", "rebuild_beat", "rebuild_state"
BUILDING, ABORTED, DONE = "building", "aborted", "done"
BEAT_SECONDS = 2.0
WATCH_SECONDS = 10.0
"""How long a beat has to stand still before its owner is taken for dead."""
_TRIES = 3

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """One collection of the index, as it is shown. `state` is `live`, `building`, `aborted` or `old`."""

    name: str
    state: str
    model: str
    dimension: int
    points: int


class Collections:
    """The collections of an index, for whoever operates it. Raises Defer where the index is away."""

    def __init__(self, aliases: Aliases) -> None:
        """Operate on what these aliases name."""
        self.aliases = aliases

    async def live(self) -> Passages:
        """Open the live collection, whatever made it, to be counted; the first is made where there is none."""
        with translated(self.aliases.place.clock):
            live = (await self.aliases.look()).collection or (await self.aliases.first()).collection
            return Passages(self.aliases.place.named(str(live), known=True))

    async def listed(self) -> Sequence[Built]:
        """List all collections."""
        with translated(self.aliases.place.clock):
            live = (await self.aliases.look()).collection
            return [await self._built(self.aliases.name_of(number), live) for number in await self.aliases.numbers()]

    async def droppable(self) -> Sequence[str]:
        """Name what nobody can ever need again: what came before the live one, and what was aborted.

        A reader made for another model may still read the one before; dropping it ends that.
        """
        with translated(self.aliases.place.clock):
            live = await self._live()
            numbers = await self.aliases.numbers()
            later = [n for n in numbers if n > live and (await self.metadata(n)).get(STATE) == ABORTED]
            return [self.aliases.name_of(number) for number in [*(n for n in numbers if n < live), *later]]

    async def drop(self, name: str) -> None:
        """Delete a collection."""
        with translated(self.aliases.place.clock):
            await self._delete(name)

    async def abort(self) -> Sequence[str]:
        """End any rebuild, whoever runs it, and delete what it has made; returns the names of that.

        The order matters: who sets its closing alias after this has marked the collection sees the mark, and what was
        set before is taken away. So no switch can come between the look and the deletion.
        """
        with translated(self.aliases.place.clock):
            live = await self._live()
            later = [number for number in await self.aliases.numbers() if number > live]
            for number in later:
                await self.note(number, {STATE: ABORTED})
            await self.open_all()
            if await self._live() != live:
                raise ConfigurationError("the rebuild has made its switch already; there is nothing to abort")
            for number in later:
                await self._delete(self.aliases.name_of(number))
            return [self.aliases.name_of(number) for number in later]

    async def open_all(self) -> None:
        """Take all closing aliases away, so that writers go on."""
        closing = (await self.aliases.look()).closing
        if closing:
            await self.aliases.update([deleted(name) for name in closing])

    async def metadata(self, number: int) -> Mapping[str, Any]:
        """Read what a collection's metadata say."""
        place = self.aliases.place
        info = await place.run(place.client.get_collection(self.aliases.name_of(number)))
        return info.config.metadata or {}

    async def note(self, number: int, told: Mapping[str, Any]) -> None:
        """Write into a collection's metadata; what they say else stays."""
        place = self.aliases.place
        await place.run(place.client.update_collection(self.aliases.name_of(number), metadata=dict(told)))

    async def _live(self) -> int:
        live = (await self.aliases.look()).collection
        if live is None:
            raise ConfigurationError(
                f"there is no alias {self.aliases.alias!r}, so there is no index yet: the stage `index` makes it when "
                "it starts"
            )
        number = live.removeprefix(f"{self.aliases.alias}-")
        if not number.isdecimal():
            raise ConfigurationError(f"the alias {self.aliases.alias!r} names {live!r}, which is no collection of ours")
        return int(number)

    async def _delete(self, name: str) -> None:
        await self.aliases.place.run(self.aliases.place.client.delete_collection(name))

    async def _built(self, name: str, live: str | None) -> Built:
        place = self.aliases.place.named(name, known=True)
        info = await place.run(place.client.get_collection(name))
        told = info.config.metadata or {}
        about = told.get(ABOUT) or {}
        state = "live" if name == live else told.get(STATE, "old")
        state = "old" if state == DONE else state
        return Built(name, state, about.get("model", ""), about.get("dimension", 0), await place.count(None))


class Rebuild(Collections):
    """One run: `begin` it, `beat` every other second, fill `made`, then `close`, `switch`. It knows old and new."""

    def __init__(self, aliases: Aliases, owner: str) -> None:
        """Run as `owner`, twelve hexadecimal digits that nobody else has."""
        super().__init__(aliases)
        self._owner = owner
        self._number = 0
        self._beats = 0
        self.resumed = False
        self.old: Collection = aliases.place
        self.new: Collection = aliases.place

    @property
    def names(self) -> tuple[str, str]:
        """The names of the old collection and the new one."""
        return self.old.name, self.new.name

    @property
    def copy(self) -> PassageCopy:
        """What compares the two."""
        return PassageCopy(self.old, self.new)

    async def begin(self, say: Say) -> Passages:
        """Make the new collection, or go on with one that was left; returns the store that fills it.

        Raises ConfigurationError where another rebuild is at work.
        """
        with translated(self.aliases.place.clock):
            await self.aliases.place.measure()
            live = await self._live()
            self.old = self.aliases.place.named(self.aliases.name_of(live), known=True)
            left = [number for number in await self.aliases.numbers() if number > live]
            self._number = max(left, default=live + 1)
            if left:
                await self._take_over(live, left, say)
            place = self.aliases.place.named(self.aliases.name_of(self._number), makes=True)
            place.notes = {OWNER: self._owner, BEAT: "", STATE: BUILDING}
            await place.prepare()
            self.new = place
        await self.beat()
        return Passages(place)

    async def beat(self) -> None:
        """Show that this run is alive. Raises Halt where it is not the owner any more."""
        with translated(self.aliases.place.clock):
            await self._check()
            self._beats += 1
            await self.note(self._number, {BEAT: f"{self._owner} {self._beats}"})

    async def documents(self) -> tuple[Mapping[str, tuple[int, int]], Mapping[str, tuple[int, int]]]:
        """Count the documents and the removed ones of each source, in the old collection and in the new one."""
        return await _documents(self.old), await _documents(self.new)

    async def close(self) -> None:
        """Let writers wait, from a look of theirs on that begins after this."""
        with translated(self.aliases.place.clock):
            await self.aliases.update([created(self.aliases.closing_of(self._owner), self.new.name)])
            try:
                # Whoever aborts marks the collection first, and takes closing aliases away afterwards.
                await self._check()
            except Halt:
                await self.reopen()
                raise

    async def reopen(self) -> None:
        """Take the closing alias of this run away, so that writers go on with what is live."""
        with translated(self.aliases.place.clock):
            await self.aliases.update([deleted(self.aliases.closing_of(self._owner))])

    async def switch(self) -> None:
        """Make the new collection live, by one action. Raises Halt where the closing alias was taken away.

        A request that got no answer may have been carried out, or may still be: the alias tells.
        """
        closing, failure = self.aliases.closing_of(self._owner), None
        for _ in range(_TRIES):
            with translated(self.aliases.place.clock):
                try:
                    await self.aliases.update([renamed(closing, self.aliases.alias)])
                except (ApiException, ValueError) as error:
                    failure = error
                live = await self.aliases.look()
                if live.collection == self.new.name:
                    await self.note(self._number, {STATE: DONE})
                    await self.open_all()  # of a run that was stopped before it saw that it is not the owner any more
                    return
                if closing not in live.closing:
                    raise _taken_away(self.new.name)
                if failure:
                    raise failure
        raise Halt("the index does not switch, and does not say why", code="index_error")

    async def _check(self) -> None:
        told = await self.metadata(self._number)
        if told.get(OWNER) != self._owner or told.get(STATE) != BUILDING:
            raise _taken_away(self.new.name)

    async def _take_over(self, live: int, left: Sequence[int], say: Say) -> None:
        """Take what another run has left. What is made by another model, or was aborted, is made anew."""
        told = await self.metadata(self._number)
        if told.get(STATE) == BUILDING and self.aliases.place.remote:
            await self._watch(str(told.get(BEAT)), say)
        for number in left:
            await self.note(number, {OWNER: self._owner})
        await self.open_all()
        if await self._live() != live:
            raise ConfigurationError("another rebuild has just made its switch; run this one again if it is needed")
        self.resumed = told.get(STATE) == BUILDING and told.get(ABOUT) == self.aliases.place.about()
        for number in left:
            if number < self._number or not self.resumed:
                await self._delete(self.aliases.name_of(number))

    async def _watch(self, beat: str, say: Say) -> None:
        name = self.aliases.name_of(self._number)
        say(f"{name} is being made already: looking for {WATCH_SECONDS:g} s whether by somebody who is still at work")
        waited = 0.0
        while waited < WATCH_SECONDS:
            await asyncio.sleep(BEAT_SECONDS)
            waited += BEAT_SECONDS
            if str((await self.metadata(self._number)).get(BEAT)) != beat:
                raise ConfigurationError(
                    f"another `pipeline index rebuild` is making {name} at this moment: let it end, or end it with "
                    "`pipeline index rebuild --abort`"
                )


async def _documents(place: Collection) -> Mapping[str, tuple[int, int]]:
    sources = (await PassageCensus(place).status()).sources
    return {name: (one.documents, one.removed) for name, one in sources.items()}


def _taken_away(name: str) -> Outcome:
    reason = f"{name} is no longer this rebuild's: it was aborted, or another rebuild has taken it over"
    return Halt(reason, code="rebuild_lost")
