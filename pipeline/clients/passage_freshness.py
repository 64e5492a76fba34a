"""How far the index has followed its sources: the port `Freshness`, from what the index stage has committed.

A version is not looked for: the records of a source are spread over partitions and may wait in the tiers, so the newest
version that was seen says nothing of those before it. What is asked instead is whether all that was written before the
question is settled. Who names a version has written it, and has heard from Kafka that it is written, before asking. Who
reads a version off a database cannot know when the connector has brought it to Kafka, so of such sources nothing is
told.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.clients.redact import redact
from pipeline.core.errors import Defer, Fail
from pipeline.core.ports import Clock
from pipeline.core.record import Partition

REMEMBERED = 10_000
"""The most askers of whom it is known when they began; one who is forgotten begins anew: as right, and later."""
AWAY_SECONDS = 5.0
"""How long a question is deferred that the broker did not answer."""

Offsets = Mapping[Partition, int]


class Places(Protocol):
    """Says how far topics, and groups on them, are; the broker's admin client does."""

    async def end_offsets(self, topics: Iterable[str], /) -> Offsets:
        """Look up the next offset to be written of each partition."""
        ...

    async def committed(self, group: str, topics: Iterable[str], /) -> Offsets:
        """Look up how far a group has settled each partition; where it never was, none."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the index stage: the ends of `sources` and `tiers`, then what is `committed`, then ends `after`."""

    sources: Offsets
    tiers: Offsets
    committed: Offsets
    after: Offsets

    def settled(self, written: Offsets) -> bool:
        """Whether all that stood below `written` in the sources is applied, or is a dead letter.

        A record is committed once it is applied, or once its copy is acknowledged in a tier or among the dead letters;
        of a copy in a tier the same is true. So where the sources are committed up to `written`, all of its records
        are done, or were copied to a tier. A copy made before the tiers' ends were looked up is below them, and so
        committed; one made later would show in `after`. Tiers that never rest keep this from being seen, no more.
        """
        return self.tiers == self.after and all(
            self.committed.get(place, 0) >= end for place, end in {**self.tiers, **written}.items()
        )


class SettledFreshness:
    """Fills the port from what `group` has committed on its sources `topics` and on its `tiers`, all of which exist.

    Each asker has to wait for what was written when it first asked; those who ask at once share a look.
    `foreign` are the sources whose changes a connector brings.
    """

    def __init__(
        self,
        places: Places,
        group: str,
        topics: Collection[str],
        tiers: Collection[str],
        foreign: Collection[str],
        clock: Clock,
    ) -> None:
        """Know of nobody who has asked."""
        self._places = places
        self._group = group
        self._topics = frozenset(topics)
        self._tiers = frozenset(tiers)
        self._clock = clock
        self._foreign = frozenset(foreign)
        self._written: OrderedDict[str, Offsets] = OrderedDict()
        self._looking = asyncio.Lock()
        self._begun = self._ended = 0
        self._seen: Look | str = ""

    async def caught_up(self, source: str, version: int, asker: str) -> bool:
        """Whether all that was written before `asker` first asked is in the index; see the port."""
        if source in self._foreign:
            reason = f"as_fresh_as: how far {source[:64]!r} has come to Kafka is not known here (version {version})"
            raise Fail(reason, code="freshness_unknown")
        look = await self._look()
        written = self._written.setdefault(asker, look.sources)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
        return look.settled(written)

    async def _look(self) -> Look:
        """Return a look that was begun after the call of this. One that failed is shared as well.

        So whoever asks waits for two looks at most, however many ask of a broker that does not answer.
        """
        number = self._begun + 1
        async with self._looking:
            if self._ended < number:
                self._begun += 1
                self._seen = await self._new_look()
                self._ended = self._begun
            if isinstance(self._seen, Look):
                return self._seen
            raise Defer(self._seen, until=self._clock() + AWAY_SECONDS, code="freshness_unknown")

    async def _new_look(self) -> Look | str:
        """Look, or say in a sentence why that could not be done."""
        every = sorted(self._topics | self._tiers)
        try:
            ends = await self._places.end_offsets(every)
            committed = await self._places.committed(self._group, every)
            after = await self._places.end_offsets(sorted(self._tiers))
        except Exception as error:  # whatever the broker's client raises, it is no fault of who asks
            return _unknown(f"{type(error).__name__} {error}")
        # A topic one of whose partitions has no leader is left out, and would be taken for one without records.
        missing = sorted((self._topics | self._tiers) - {place.topic for place in ends})
        if missing:
            return _unknown(f"nothing is known of {', '.join(missing)}")
        sources = {place: end for place, end in ends.items() if place.topic in self._topics}
        tiers = {place: end for place, end in ends.items() if place.topic in self._tiers}
        return Look(sources, tiers, committed, after)


def _unknown(why: str) -> str:
    return redact(f"how far the index is cannot be found out: {why}")
