"""What the index holds of each document, held against itself: the port `IndexEntries`.

A mark's stamp is a digest of its state, and tells what its chunks must be like, down to their texts: so whatever was
altered, lost or left over shows. Vectors are not looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_marks import Mark, content_of, digest, hash_of
from pipeline.clients.passage_status import MOST_SOURCES, PassageCensus, Stored
from pipeline.clients.qdrant_failures import translated
from pipeline.core.audit_ports import IndexEntry

_ORDER = models.WriteOrdering.STRONG


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the points of a document, in clauses; `altered` and `surplus` are what has to go."""

    mark: Mark | None
    wrong: Sequence[str] = ()
    altered: Sequence[Stored] = ()
    surplus: Sequence[Stored] = ()
    lacking: bool = False


@dataclass(slots=True)
class Pile:
    """All points of one document."""

    mark: Stored | None = None
    chunks: list[Stored] = field(default_factory=list)


class PassageEntries(PassageCensus):
    """Reads a collection document by document. Raises Defer where the index is away, Retry where it errs."""

    def content(self, title: str, texts: Sequence[str]) -> str:
        """Return the content hash of a document; see the port."""
        return content_of(title, texts, self._collection.embedded_by)

    async def sources(self) -> Sequence[str]:
        """Name the sources of all points."""
        place = self._collection
        with translated(place.clock):
            await place.prepare()
            found = await place.run(place.client.facet(place.name, points.SOURCE, limit=MOST_SOURCES, exact=True))
        return sorted(str(hit.value) for hit in found.hits)

    async def marked(self, source: str) -> int:
        """Count the marks of a source."""
        with translated(self._collection.clock):
            await self._collection.prepare()
            return await self._collection.count(points.of_kind(points.OF_DOCUMENT, source))

    async def chunked(self, source: str) -> AsyncIterator[Sequence[str]]:
        """List the documents of all chunks."""
        async for page in self.scroll(points.of_kind(points.OF_CHUNK, source), [points.DOCUMENT]):
            yield [one.payload[points.DOCUMENT] for one in page if points.DOCUMENT in one.payload]

    async def draw(self, source: str, number: int) -> Sequence[str]:
        """Draw documents at random: points are in the order of their ids, which are digests, so any stretch will do."""
        drawn = list[str]()
        marks = points.of_kind(points.OF_DOCUMENT, source)
        for start in (str(uuid4()), None):
            async for page in self.scroll(marks, [points.DOCUMENT], start):
                drawn += [one.payload[points.DOCUMENT] for one in page if points.DOCUMENT in one.payload]
                if len(drawn) >= number:
                    return list(dict.fromkeys(drawn[:number]))
        return list(dict.fromkeys(drawn))[:number]

    async def emptied(self, source: str) -> int | None:
        """Return up to which version a source was emptied."""
        place, name = self._collection, points.source_id(source)
        with translated(place.clock):
            await place.prepare()
            found = await place.run(place.client.retrieve(place.name, [name], with_payload=True))
        return int((found[0].payload or {})[points.VERSION]) if found else None

    async def entries(self, source: str, documents: Sequence[str]) -> Mapping[str, IndexEntry]:
        """Read all that is held of some documents."""
        piles = await self._piles(source, documents)
        return {name: self._entry(name, pile, self._damage(source, name, pile)) for name, pile in piles.items()}

    async def discard(self, source: str, document: str, *, surplus: bool) -> None:
        """Take away what does not fit together, each point on the condition that its stamp is still what was read."""
        pile = (await self._piles(source, [document])).get(document, Pile())
        found = self._damage(source, document, pile)
        unwanted = [*found.surplus, *(() if surplus else found.altered)]
        place = self._collection
        with translated(place.clock):
            for one in unwanted:
                chosen = models.FilterSelector(filter=_as_read(one))
                await place.run(place.client.delete(place.name, chosen, wait=True, ordering=_ORDER))

    # ---- reading -----------------------------------------------------------------------------------------------------
    async def _piles(self, source: str, documents: Sequence[str]) -> Mapping[str, Pile]:
        place, piles = self._collection, dict[str, Pile]()
        if not documents:
            return piles
        names = {points.mark_id(source, document): document for document in documents}
        with translated(place.clock):
            await place.prepare()
            marks = await place.run(place.client.retrieve(place.name, [*names], with_payload=True))
        for mark in marks:
            piles[names[str(mark.id)]] = Pile(Stored(str(mark.id), mark.payload or {}))
        theirs = models.FieldCondition(key=points.DOCUMENT, match=models.MatchAny(any=[*documents]))
        async for page in self.scroll(models.Filter(must=[points.of_kind(points.OF_CHUNK, source), theirs]), True):
            for one in page:
                piles.setdefault(one.payload[points.DOCUMENT], Pile()).chunks.append(one)
        return piles

    # ---- holding it against itself -----------------------------------------------------------------------------------
    def _entry(self, document: str, pile: Pile, found: Damage) -> IndexEntry:
        everything = [*([pile.mark] if pile.mark else []), *sorted(pile.chunks, key=lambda one: one.id)]
        stamp = digest([[one.id, dict(one.payload)] for one in everything])
        damage = "; ".join(found.wrong[:3])
        surplus = bool(found.surplus) and not found.altered and not found.lacking
        mark = found.mark
        if mark is None:
            return IndexEntry(document, stamp=stamp, damage=damage, surplus=surplus)
        return IndexEntry(
            document=document,
            version=mark.version,
            deleted=mark.deleted,
            tenant=mark.tenant,
            title=mark.title,
            fields=mark.fields,
            content=mark.content,
            stamp=stamp,
            damage=damage,
            surplus=surplus,
        )

    def _damage(self, source: str, document: str, pile: Pile) -> Damage:
        """Hold the chunks of a document against its mark, and the mark against its own digest."""
        if pile.mark is None:
            wrong = [f"{len(pile.chunks)} chunks have no mark"] if pile.chunks else []
            return Damage(None, wrong, surplus=pile.chunks)
        mark = _intact(pile.mark, source, document)
        if mark is None:
            return Damage(None, ["its mark is not as it was written"], altered=[pile.mark, *pile.chunks])
        ours = {points.point_id(source, document, number): number for number in range(mark.chunks)}
        known = {one.id: one for one in pile.chunks if one.id in ours}
        surplus = [one for one in pile.chunks if one.id not in ours]
        altered = [one for name, one in known.items() if not self._right(mark, ours[name], one)]
        missing = [number for name, number in ours.items() if name not in known]
        wrong = [f"chunk {ours[one.id]} is not as it was written" for one in altered]
        wrong += [f"chunk {number} is missing" for number in missing]
        if surplus:
            wrong.append(f"it has {len(surplus)} chunks more than its mark counts")
        if not altered and not missing and not self._told(mark, [known[name] for name in ours]):
            wrong.append("its chunks are not those that its mark tells")
            altered = list(known.values())
        return Damage(mark, wrong, altered, surplus, lacking=bool(missing))

    def _right(self, mark: Mark, number: int, held: Stored) -> bool:
        text = held.payload.get(points.TEXT)
        if not isinstance(text, str):
            return False
        hashed = hash_of(mark.title, text, self._collection.embedded_by)
        return dict(held.payload) == points.chunk_payload(mark, number, text, hashed)

    def _told(self, mark: Mark, held: Sequence[Stored]) -> bool:
        texts = [one.payload[points.TEXT] for one in held]
        return mark.content == self.content(mark.title, texts) and mark.body == digest(texts)


def _intact(held: Stored, source: str, document: str) -> Mark | None:
    """Read a mark that is as it was written; None for any other."""
    try:
        mark = points.read_mark(held.payload)
    except ValueError:
        return None
    return mark if (mark.source, mark.document, mark.stamp) == (source, document, mark.stamped()) else None


def _as_read(held: Stored) -> models.Filter:
    same: Any = (
        models.IsEmptyCondition(is_empty=models.PayloadField(key=points.STAMP))
        if held.stamp is None
        else models.FieldCondition(key=points.STAMP, match=models.MatchValue(value=held.stamp))
    )
    return models.Filter(must=[models.HasIdCondition(has_id=[held.id]), same])
