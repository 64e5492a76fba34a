"""How far the index has followed its sources: the port `Freshness`, from what the index stage has committed.

A version is not looked for: the records of a source are spread over partitions and may wait in the tiers, so the newest
version that was seen says nothing of those before it. What is asked instead is whether all that was written before the
question is settled. Who names a version has written it, and has heard from Kafka that it is written, before asking.

Who reads a version off a database cannot know when the connector has brought it to Kafka. The connector's replication
slot knows (`confirmed_flush_lsn`): the connector confirms a position of the log there once Kafka has acknowledged the
records, in the order of the commits. So first the slot has to have passed the version, a position that was read after
the commit; from then on, what was written is looked for as above. Two things are left to chance. Debezium confirms what
was acknowledged last: a record that another broker acknowledges later may be missed for those milliseconds. And while a
snapshot is taken the slot has passed everything before it, although little of that is in Kafka: so a slot that nobody
reads, as then, is taken for one that has not passed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.clients.redact import redact
from pipeline.clients.shared import Shared
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


@dataclass(frozen=True, slots=True)
class Foreign:
    """The sources whose changes a connector brings, by their topics; empty where versions are none of the log.

    `passed` says up to which position of the log the connector has brought them; None where that cannot be known.
    """

    topics: Mapping[str, str] = field(default_factory=dict)
    passed: Callable[[], Awaitable[int]] | None = None


class SettledFreshness:
    """Fills the port from what `group` has committed on its sources `topics` and on its `tiers`, all of which exist.

    Each asker has to wait for what was written when it first asked; those who ask at once share a look. Of a `foreign`
    source it waits for what was written once the connector had passed the version.
    """

    def __init__(
        self,
        places: Places,
        group: str,
        topics: Collection[str],
        tiers: Collection[str],
        foreign: Foreign,
        clock: Clock,
    ) -> None:
        """Know of nobody who has asked."""
        self._places = places
        self._group = group
        self._topics = frozenset(topics)
        self._tiers = frozenset(tiers)
        self._clock = clock
        self._foreign = foreign
        self._written: OrderedDict[tuple[str, str, int], Offsets] = OrderedDict()
        self._looks = Shared(self._look)
        self._slot = Shared(foreign.passed) if foreign.passed else None
        self._passed = 0

    async def caught_up(self, source: str, version: int, asker: str) -> bool:
        """Whether all is in the index that was written before `asker` first asked, or the connector came so far."""
        topics, name = self._topics, (asker, "", 0)
        if source in self._foreign.topics:
            if not await self._brought(source, version):
                return False
            # Each version of each table is waited for apart: what was written before it was there does not count.
            topics, name = frozenset({self._foreign.topics[source]}), (asker, source, version)
        look = await self._looks.answer()
        # A topic one of whose partitions has no leader is left out, and would be taken for one without records.
        if missing := sorted((topics | self._tiers) - {place.topic for place in (*look.sources, *look.tiers)}):
            raise self._unknown(f"nothing is known of {', '.join(missing)}")
        now = {place: end for place, end in look.sources.items() if place.topic in topics}
        written = self._written.setdefault(name, now)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
        return look.settled(written)

    async def _brought(self, source: str, version: int) -> bool:
        """Whether the connector has brought what was committed up to `version`. Raises Fail where that is not known."""
        if self._slot is None or not self._foreign.topics[source]:
            raise Fail(
                f"as_fresh_as: how far {source[:64]!r} has come to Kafka is not known here (version {version}): that "
                "needs SOURCE_DATABASE_URL, `slot` in PIPELINE_TABLES, and version: lsn there",
                code="freshness_unknown",
            )
        if version > self._passed:
            passed = await self._slot.answer()
            self._passed = max(self._passed, passed)
        return version <= self._passed

    async def _look(self) -> Look:
        """Look anew. Raises Defer with the reason where that cannot be done."""
        topics = self._topics | {topic for topic in self._foreign.topics.values() if topic and self._slot}
        every = sorted(topics | self._tiers)
        try:
            ends = await self._places.end_offsets(every)
            committed = await self._places.committed(self._group, every)
            after = await self._places.end_offsets(sorted(self._tiers))
        except Exception as error:  # whatever the broker's client raises, it is no fault of who asks
            raise self._unknown(f"{type(error).__name__} {error}") from error
        sources = {place: end for place, end in ends.items() if place.topic in topics}
        tiers = {place: end for place, end in ends.items() if place.topic in self._tiers}
        return Look(sources, tiers, committed, after)

    def _unknown(self, why: str) -> Defer:
        reason = redact(f"how far the index is cannot be found out: {why}")
        return Defer(reason, until=self._clock() + AWAY_SECONDS, code="freshness_unknown")
