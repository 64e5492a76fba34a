"""Writing the index: the port `PassageStore` on Qdrant.

A call reads what the index holds of its document, decides (`passage_marks`), writes, and reads again until nothing is
left to do. New chunks are written before stale ones go, so that a search in between finds some state of the document.
Points of concurrent calls share requests (`passage_batches`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from pipeline.clients import passage_points as points
from pipeline.clients.passage_batches import MOST, Batches, Turns
from pipeline.clients.passage_collection import Collection, Work
from pipeline.clients.passage_marks import Change, Hashes, State, Step, decide
from pipeline.clients.qdrant_failures import AWAY, translated
from pipeline.core.errors import Reject, Retry
from pipeline.core.index_ports import Chunk, Indexed
from pipeline.core.payloads import Document

ROUNDS = 12
"""How often a call writes before it gives way: as many workers at once on one document are a mistake somewhere."""
WITHHELD_SECONDS = 3600.0
"""How long the text of a removed document is kept, unseen, for a document that takes it over under a new id."""
SWEEP_SECONDS = 60.0
"""How often texts are looked for that were withheld for so long, while documents are being removed."""
MARK_SECONDS = 90 * 86_400.0
"""How long the mark of a removed document is kept: three times as long as dead letters are, from which a late event may
come at the last (30 days; topics of work keep 7). A topic that keeps more is read in order, deletions included."""
FORGET_SECONDS = 3600.0
"""How often older marks are looked for, whatever is written."""
EXACT = 2**53
"""Up to here Qdrant compares whole numbers exactly."""

_ORDER = models.WriteOrdering.STRONG
_WITHOUT_TEXTS = models.PayloadSelectorExclude(exclude=[points.TEXT])

Payloads = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Reading:
    """Points wanted by their ids, with the texts of chunks or without."""

    ids: Sequence[str]
    texts: bool


@dataclass(frozen=True, slots=True)
class Writing:
    """Points to write where the stamps are as expected, and what is to be done after them."""

    points: Sequence[models.PointStruct]
    expected: frozenset[str] = frozenset()
    after: Sequence[models.UpdateOperation] = ()


@dataclass(slots=True)
class Tally:
    """What a call has done so far. `vectors` are those embedded, by content hash: no text is embedded twice."""

    written: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    tokens: int = 0
    vectors: dict[str, list[float]] = field(default_factory=dict)

    def indexed(self, step: Step) -> Indexed:
        """Say what it all came to, when `step` has found nothing left to do."""
        if step.stale:
            return Indexed(stale=True, tokens=self.tokens)
        written = len(self.written & set(step.kept))
        return Indexed(written=written, kept=len(step.kept) - written, removed=len(self.removed), tokens=self.tokens)


class Names:
    """The ids of a document's points, each made once."""

    def __init__(self, source: str, document: str) -> None:
        """Name the points of one document."""
        self._origin = source, document
        self._chunks: list[str] = []
        self.source = points.source_id(source)
        self.mark = points.mark_id(source, document)

    def chunks(self, start: int, end: int) -> Sequence[str]:
        """Return the ids of some chunks, by their numbers."""
        self._chunks += [points.point_id(*self._origin, number) for number in range(len(self._chunks), end)]
        return self._chunks[start:end]

    def at(self, wanted: Mapping[str, Sequence[int]]) -> models.Filter:
        """Select chunks by their numbers, as long as they carry the stamps that were read."""
        return points.chunks_of(*self._origin, wanted)


class PassageKeeper:
    """Keeps documents in a collection."""

    def __init__(self, collection: Collection, bm25: points.Embedder) -> None:
        """Write to `collection`; its own embedder, where it has one, makes the dense vectors."""
        self._collection = collection
        self._bm25 = bm25
        self._turns = Turns()
        self._reads = Batches[Reading, Payloads](self._read_all, lambda one: len(one.ids), _refused)
        self._writes = Batches[Writing, None](self._write_all, lambda one: max(1, len(one.points)), _refused)
        self._swept = self._forgot = 0.0

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Make `chunks` the whole of a document; see the port. Without chunks it is removed."""
        texts = [chunk.text for chunk in chunks]
        if [chunk.number for chunk in chunks] != list(range(len(chunks))):
            raise ValueError("the chunks of a document are numbered from 0, in order")
        layout = tuple((chunk.overlap, chunk.gap) for chunk in chunks)
        done = await self._settle(Change("replace" if texts else "remove", document, texts, layout))
        assert done is not None  # noqa: S101  # the texts are told
        return done

    async def keep(self, document: Document) -> Indexed | None:
        """Give a document a new title, fields and version; see the port.

        Where its id is new, the text is that of `document.former`, once the removal of that has come: before, its last
        text may be missing. It is withheld for an hour (`WITHHELD_SECONDS`).
        """
        return await self._settle(Change("keep", document))

    async def remove(self, document: Document) -> Indexed:
        """Remove a document; see the port."""
        done = await self._settle(Change("remove", document))
        assert done is not None  # noqa: S101  # a removal needs no text
        return done

    async def empty(self, source: str, version: int) -> Indexed:
        """Remove a source's documents; see the port. Also those that were never seen come too late from now on."""
        if abs(version) > EXACT:
            raise Reject(f"a source is emptied up to a version within 2^53, not {version}", code="version_too_large")
        place, gone, removed = self._collection, points.emptied(source, version), 0
        with translated(place.clock):
            await place.prepare()
            for _ in range(ROUNDS):
                known = await self._emptied_up_to(source)
                if known is None or known < version:
                    expected = frozenset() if known is None else frozenset({points.source_stamp(source, known)})
                    await self._writes.add(Writing([points.source_point(source, version)], expected))
                    continue
                if not await self._collection.count(gone):
                    return Indexed(stale=known > version, removed=removed)
                chunks = models.Filter(must=[gone, points.of_kind(points.OF_CHUNK)])
                removed += await self._collection.count(chunks)
                await self._writes.add(Writing([], after=[_deletion(gone)]))
        raise _contended(source)

    async def forget(self, before_ms: int) -> int:
        """Remove the marks of documents that were removed before a time (epoch ms, our clock); returns how many.

        An event of such a document that is older than its removal, and comes only now, brings it back: keep marks for
        longer than the topics keep records. What a source was emptied up to is never forgotten.
        """
        place, gone = self._collection, points.forgotten(before_ms)
        with translated(place.clock):
            await place.prepare()
            number = await self._collection.count(gone)
            if number:
                await self._writes.add(Writing([], after=[_deletion(gone)]))
        return number

    async def drain(self) -> None:
        """Wait for the requests under way; to be called before the client is closed."""
        await self._reads.drain()
        await self._writes.drain()

    # ---- one document ------------------------------------------------------------------------------------------------
    async def _settle(self, change: Change) -> Indexed | None:
        document, tally, place = change.document, Tally(), self._collection
        hashes, names = Hashes(place.embedded_by), Names(document.source, document.id)
        height = None if change.kind == "keep" else document.version
        with translated(place.clock):
            await place.prepare()
            async with self._turns.turn((document.source, document.id), height):
                for _ in range(ROUNDS):
                    state = await self._state(change, names)
                    step = decide(state, change, hashes, int(place.clock() * 1000))
                    if step.lost:
                        return None
                    if step.idle:
                        return tally.indexed(step)
                    await self._embed(step, state, names, tally)
                    await self._write(step, names, tally)
        raise _contended(document.id)

    async def _state(self, change: Change, names: Names) -> State:
        """Read all there is of a document: its mark first, since that tells how many chunks there may be."""
        source, texts, number = change.document.source, change.kind != "replace", len(change.texts)
        former = change.document.former if change.kind == "keep" else None
        theirs = points.mark_id(source, former) if former else ""
        wanted = [names.source, names.mark, *([theirs] if theirs else []), *names.chunks(0, number)]
        found = dict(await self._read(wanted, texts=texts))
        mark = points.read_mark(found[names.mark]) if names.mark in found else None
        if mark and mark.high > number:
            found |= await self._read(names.chunks(number, mark.high), texts=texts)
        held = [points.read_held(one) for one in found.values() if one.get(points.KIND) == points.OF_CHUNK]
        return State(
            emptied=found[names.source][points.VERSION] if names.source in found else None,
            mark=mark,
            held={one.number: one for one in held},
            former=points.read_mark(found[theirs]) if theirs in found else None,
        )

    async def _write(self, step: Step, names: Names, tally: Tally) -> None:
        made = [points.mark_point(step.mark)] if step.mark and step.new_mark else []
        made += [self._point(step, number, names, tally) for number in step.write]
        expected = step.expected | ({points.mark_stamp(step.old_mark)} if step.old_mark else set())
        after = self._after(names, step)
        if len(made) > MOST:
            for start in range(0, len(made), MOST):
                await self._writes.add(Writing(made[start : start + MOST], expected))
            made = []
        if made or after:
            await self._writes.add(Writing(made, expected, after))
        tally.written |= set(step.write)
        tally.removed |= {number for numbers in step.surplus.values() for number in numbers}

    def _after(self, names: Names, step: Step) -> list[models.UpdateOperation]:
        """Say what follows the points: the unchanged chunks are raised to the new state, and what is stale goes."""
        after: list[models.UpdateOperation] = []
        if step.raised and step.mark:
            chosen = names.at(step.raised)
            raised = models.SetPayload(payload=points.common(step.mark), filter=chosen)
            after.append(models.SetPayloadOperation(set_payload=raised))
        if step.surplus:
            after.append(_deletion(names.at(step.surplus)))
        if step.drop_mark and step.mark:
            after.append(_deletion(points.mark_of(step.mark)))
        now = self._collection.clock()
        if step.mark and step.mark.deleted and now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            old = points.withheld_before(int((now - WITHHELD_SECONDS) * 1000))
            swept = models.DeletePayload(keys=[points.WITHHELD, points.WITHHELD_MS], filter=old)
            after.append(models.DeletePayloadOperation(delete_payload=swept))
        if now - self._forgot >= FORGET_SECONDS:
            # Not by the first write of a process, unless it removes: a search through all marks would hold it up.
            if self._forgot or (step.mark and step.mark.deleted):
                after.append(_deletion(points.forgotten(int((now - MARK_SECONDS) * 1000))))
            self._forgot = now
        return after

    def _point(self, step: Step, number: int, names: Names, tally: Tally) -> models.PointStruct:
        mark, text, hashed = step.mark, step.texts[number], step.hashes[number]
        assert mark is not None  # noqa: S101  # whatever is written belongs to a state
        vector: dict[str, Any] = {points.VECTOR: self._bm25.document(mark.title, text)}
        if hashed in tally.vectors:
            vector[points.DENSE] = tally.vectors[hashed]
        return models.PointStruct(
            id=names.chunks(number, number + 1)[0],
            vector=vector,
            payload=points.chunk_payload(mark, number, text, hashed),
        )

    async def _embed(self, step: Step, state: State, names: Names, tally: Tally) -> None:
        """Get the dense vectors that are missing. Raises Retry for an answer that must not reach the index."""
        place = self._collection
        if place.embedder is None or step.mark is None:
            return
        texts = {step.hashes[n]: f"{step.mark.title}\n{step.texts[n]}" for n in step.write}
        places = {one.hash: names.chunks(n, n + 1)[0] for n, one in state.held.items() if one.hash in texts}
        tally.vectors |= await self._vectors([at for hashed, at in places.items() if hashed not in tally.vectors])
        wanted = [hashed for hashed in texts if hashed not in tally.vectors]
        if not wanted:
            return
        answer = await place.embedder.embed([texts[hashed] for hashed in wanted])
        check_vectors(answer.vectors, len(wanted), place.dimension)
        tally.tokens += answer.tokens
        tally.vectors |= {hashed: list(vector) for hashed, vector in zip(wanted, answer.vectors, strict=True)}

    async def _vectors(self, ids: Sequence[str]) -> dict[str, list[float]]:
        """Read vectors by content hash: a text that only moves to another number was paid for before."""
        if not ids:
            return {}
        place = self._collection
        read = await place.run(
            place.client.retrieve(place.name, list(ids), with_payload=[points.HASH], with_vectors=[points.DENSE])
        )
        known: dict[str, list[float]] = {}
        for one in read:
            vectors: Any = one.vector
            if one.payload and isinstance(vectors, dict) and points.DENSE in vectors:
                known[one.payload[points.HASH]] = vectors[points.DENSE]
        return known

    # ---- requests ----------------------------------------------------------------------------------------------------
    async def _read(self, ids: Sequence[str], *, texts: bool) -> Payloads:
        return await self._reads.add(Reading(ids, texts))

    async def _read_all(self, wanted: Sequence[Reading]) -> Sequence[Payloads]:
        place = self._collection
        texts = any(one.texts for one in wanted)
        read = await place.run(
            place.client.retrieve(
                place.name,
                list(dict.fromkeys(name for one in wanted for name in one.ids)),
                # To leave texts out saves their way over the network; the embedded engine only has more to do.
                with_payload=True if texts or not place.remote else _WITHOUT_TEXTS,
                consistency=models.ReadConsistencyType.MAJORITY,
            )
        )
        found = {str(one.id): one.payload or {} for one in read}
        return [{name: found[name] for name in one.ids if name in found} for one in wanted]

    async def _write_all(self, wanted: Sequence[Writing]) -> Sequence[None]:
        """Write the points of several calls by one operation: a stamp is of one document, so all share a condition."""
        place = self._collection
        made = [point for one in wanted for point in one.points]
        after = [after for one in wanted for after in one.after]
        fence = points.fence(frozenset().union(*(one.expected for one in wanted)))
        if not after:  # the plain request, which the embedded engine checks once instead of twice
            work: Work[Any] = place.client.upsert(place.name, made, wait=True, ordering=_ORDER, update_filter=fence)
        else:
            first = models.UpsertOperation(upsert=models.PointsList(points=made, update_filter=fence))
            operations = [first, *after] if made else after
            work = place.client.batch_update_points(place.name, operations, wait=True, ordering=_ORDER)
        await place.run(work)
        return [None] * len(wanted)

    async def _emptied_up_to(self, source: str) -> int | None:
        name = points.source_id(source)
        found = await self._read([name], texts=False)
        return int(found[name][points.VERSION]) if name in found else None


def check_vectors(vectors: Sequence[Sequence[float]], wanted: int, dimension: int) -> None:
    """Refuse what an embedder answers, where it is not as many finite vectors of the length as were asked for."""
    if len(vectors) != wanted:
        raise Retry(f"the embedding model gave {len(vectors)} vectors for {wanted} texts", code="embedding_error")
    for vector in vectors:
        if len(vector) != dimension:
            reason = f"the embedding model gave a vector of length {len(vector)}; the index has {dimension}"
            raise Retry(reason, code="embedding_error")
        if not all(map(math.isfinite, vector)):
            raise Retry("the embedding model gave a vector that holds what is no number", code="embedding_error")


def _deletion(unwanted: models.Filter) -> models.DeleteOperation:
    return models.DeleteOperation(delete=models.FilterSelector(filter=unwanted))


def _refused(error: Exception) -> bool:
    """Whether the request itself is what was wrong, so that each of its parts may fare better alone."""
    if isinstance(error, UnexpectedResponse):
        status = error.status_code or 0
        return 400 <= status < 500 and status not in AWAY
    return isinstance(error, ValueError)


def _contended(name: str) -> Retry:
    return Retry(f"too many workers write {name!r} at once", code="index_contended")
