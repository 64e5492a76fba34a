"""Working with dead letters: finding those that a filter means, counting them, and looking at one.

All reading is of a bounded snapshot, without a group: nobody's offsets move. What is done about letters is in
`letter_marks`, and bringing them back in `replay`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pipeline.core.errors import ConfigurationError
from pipeline.core.letter import LetterHead, letter_id, read_head
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.letter_state import OPEN, LetterState
from pipeline.core.ports import Clock, Codec, Producer
from pipeline.core.quick import quick
from pipeline.core.record import Position, Record
from pipeline.ops.letter_counts import Counts
from pipeline.ops.letter_decode import DeadTopic, LetterDecoder
from pipeline.ops.letter_states import LetterStates, read_states
from pipeline.ops.log_scan import Opens, Progress, Shelf, Snapshot, read_at, scan, take_snapshot
from pipeline.ops.newest import Newest

DECODED = 50_000
"""How many letters from outsiders are decoded so that they are counted by type and tenant, where no filter asks."""

_PLACE = re.compile(r"([a-zA-Z0-9._-]{1,249})/([0-9]{1,9})/([0-9]{1,18})")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Versions(Protocol):
    """Names the schema's version of a value."""

    def at_once(self, value: bytes | None) -> str | None:
        """Name it where nobody need be asked, else None."""
        ...

    async def of(self, value: bytes | None) -> str:
        """Name it."""
        ...


@quick
@dataclass(frozen=True, slots=True)
class Found:
    """A letter as a scan came by it."""

    record: Record
    head: LetterHead
    state: LetterState


@dataclass(frozen=True, slots=True)
class LetterPorts:
    """What working with dead letters takes. `topics` are the dead-letter topics, by name.

    `states` and `audit` name the topics of what people did, `partitions` counts those of `states`.
    """

    opens: Opens
    shelf: Shelf
    codec: Codec
    versions: Versions
    producer: Producer
    clock: Clock
    topics: Mapping[str, DeadTopic]
    states: str
    audit: str
    progress: Progress = lambda _what, _done, _total: None

    @property
    def decoder(self) -> LetterDecoder:
        """What decodes letters."""
        return LetterDecoder(self.topics, self.codec)


Listed = tuple[LetterHead, LetterState, str]
"""A letter, what was done about it, and its schema's version."""


@dataclass(slots=True)
class Listing:
    """What `list` shows: the counts, and the newest letters, newest first."""

    counts: Counts
    newest: Sequence[Listed] = ()
    opaque: int = 0

    def join(self, other: Listing, newest: int) -> None:
        """Add what another has listed, of other letters; the `newest` of both are kept."""
        self.counts.join(other.counts)
        self.opaque += other.opaque
        both = sorted((*self.newest, *other.newest), key=lambda one: (one[0].failed_at_ms, one[0].position))
        self.newest = both[::-1][:newest]


@dataclass(slots=True)
class Letters:
    """The dead letters of a pipeline, and what was done about them as of when this was opened (see `opened`)."""

    ports: LetterPorts
    states: LetterStates = field(default_factory=LetterStates)

    async def refresh(self, numbers: Collection[int] | None = None) -> None:
        """Read what was done about letters up to now; with `numbers`, about those of such partitions alone."""
        ports = self.ports
        async with ports.opens() as reader:
            self.states = await read_states(reader, ports.shelf, ports.codec, ports.states, numbers)

    async def snapshot(self) -> Snapshot:
        """Look up where the dead-letter topics begin and end now."""
        async with self.ports.opens() as reader:
            return await take_snapshot(reader, self.ports.shelf, list(self.ports.topics))

    async def select(
        self, wanted: LetterFilter, snapshot: Snapshot | None = None
    ) -> AsyncGenerator[Sequence[Found], None]:
        """Yield the letters that are meant, batch by batch, in order within a partition.

        All of the letters that were there when it began, or that are in the snapshot.
        """
        ports, easy, decoder = self.ports, wanted.headers_only(), self.ports.decoder
        opaque = {name for name, one in ports.topics.items() if one.open_topic}
        asks, states = wanted.needs_event, self.states
        async with aclosing(self.records(snapshot)) as batches:
            async for records in batches:
                found = []
                for record in records:
                    head = read_head(record, open_topic=record.topic in opaque)
                    state = states.of(head)
                    if not easy.matches(head, state.state):
                        continue
                    if asks:
                        head = await decoder.told(record, head) if head.opaque else head
                        if not wanted.matches(head, state.state):
                            continue
                    found.append(Found(record, head, state))
                yield found

    async def records(self, snapshot: Snapshot | None = None) -> AsyncGenerator[Sequence[Record], None]:
        """Yield all records of the dead-letter topics, up to where they end now."""
        async with self.ports.opens() as reader:
            bounds = snapshot or await take_snapshot(reader, self.ports.shelf, list(self.ports.topics))
            told = partial(self.ports.progress, "dead letters")
            async with aclosing(scan(reader, bounds.spans, told)) as batches:
                async for records in batches:
                    yield records

    async def listing(self, wanted: LetterFilter, newest: int, snapshot: Snapshot | None = None) -> Listing:
        """Count the letters that are meant, and keep the `newest` of them."""
        listing, heap = Listing(Counts(int(self.ports.clock() * 1000))), Newest[Listed](newest)
        versions, decoder, counts = self.ports.versions, self.ports.decoder, listing.counts
        async for batch in self.select(wanted, snapshot):
            for one in batch:
                head, value = one.head, one.record.value
                version = versions.at_once(value) or await versions.of(value)
                if head.opaque and listing.opaque < DECODED:
                    listing.opaque += 1
                    head = await decoder.told(one.record, head)
                counts.add(head, one.state, version)
                heap.add(head.failed_at_ms, head.position, (head, one.state, version))
        listing.newest = heap.taken()
        return listing

    async def find(self, name: str) -> Found:
        """Find a letter by its id, or by its place (`topic/partition/offset`).

        Raises ConfigurationError where there is no such letter.
        """
        return (await self.find_all([name]))[0]

    async def find_all(self, names: Sequence[str]) -> Sequence[Found]:
        """Find letters as `find` does: all ids by reading the letters once."""
        found: dict[str, Found] = {}
        for name in dict.fromkeys(names):
            place = _PLACE.fullmatch(name)
            if place is not None:
                found[name] = await self._at(Position(place[1], int(place[2]), int(place[3])), name)
            elif not _ID.fullmatch(name):
                raise ConfigurationError(
                    f"{name[:80]!r} is no letter: give an id as `pipeline dlq list` shows it, or topic/partition/offset"
                )
        await self._by_id({name for name in names if name not in found}, found)
        missing = next((name for name in names if name not in found), None)
        if missing is not None:
            raise ConfigurationError(
                f"there is no dead letter {missing}: it was purged, or is older than the topic keeps"
            )
        return list({found[name].head.id: found[name] for name in names}.values())

    async def _by_id(self, wanted: set[str], found: dict[str, Found]) -> None:
        if not wanted:
            return
        async with aclosing(self.select(LetterFilter(letters=wanted))) as batches:
            async for batch in batches:
                found.update({one.head.id: one for one in batch})
                if wanted <= found.keys():
                    return

    async def _at(self, place: Position, name: str) -> Found:
        if place.topic not in self.ports.topics:
            raise ConfigurationError(
                f"{place.topic} is no dead-letter topic here: there are {', '.join(self.ports.topics)}, and --topic "
                "adds another's"
            )
        async with self.ports.opens() as reader:
            record = await read_at(reader, place)
        if record is not None:
            return self.found(record)
        raise ConfigurationError(f"there is no dead letter at {name}: it was purged, or is older than the topic keeps")

    async def at(self, place: Position, letter: str) -> Found | None:
        """Look at the letter of this id, which stood at this place; None where it is gone."""
        async with self.ports.opens() as reader:
            record = await read_at(reader, place)
        return self.found(record) if record is not None and letter_id(record) == letter else None

    def found(self, record: Record) -> Found:
        """Tell what is known of a record of a dead-letter topic."""
        dead = self.ports.topics.get(record.topic)
        head = read_head(record, open_topic=dead is not None and dead.open_topic)
        return Found(record, head, self.states.of(head) if len(self.states) else OPEN)


async def open_letters(ports: LetterPorts) -> Letters:
    """Read what was done about letters up to now, for what is to be asked of them."""
    letters = Letters(ports)
    await letters.refresh()
    return letters
