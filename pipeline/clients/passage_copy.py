"""What one collection holds, as the changes that another has to be told of: for a rebuild, which cuts and embeds anew.

A document is told of at the version of its text, and where its title is newer, once more at that of its title. One that
was removed is told of as removed; where its text is withheld for a new id, with that text before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection
from pipeline.clients.passage_marks import Layout, Mark, digest
from pipeline.clients.passage_store import WITHHELD_SECONDS
from pipeline.clients.qdrant_failures import translated
from pipeline.core.index_ports import Chunk
from pipeline.core.passages import body_of
from pipeline.core.payloads import Document

PAGE = 64
"""Documents per request."""
READ = 256
"""Chunks per request."""

Changes = Sequence[Document]
"""What is to be told of one document, in this order."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some marks: how many there were, and what is to be told of those that the other collection lacks.

    `moving` were being changed while they were read; `further` is where the next page begins, None after the last.
    """

    seen: int
    lacking: Sequence[Changes]
    moving: int
    further: Any


class PassageCopy:
    """Compares two collections, mark by mark. Raises Defer where the index is away, Retry where it errs."""

    def __init__(self, old: Collection, new: Collection) -> None:
        """Read `old` for what `new` lacks."""
        self._old = old
        self._new = new

    async def total(self) -> int:
        """Count the marks there are."""
        with translated(self._old.clock):
            return await self._old.count(points.any_mark())

    async def page(self, offset: Any = None) -> Page:
        """Read some marks from `offset` on, and what is lacking of them."""
        with translated(self._old.clock):
            marks, further = await self._old.run(
                self._old.client.scroll(
                    self._old.name, scroll_filter=points.any_mark(), limit=PAGE, offset=offset, with_payload=True
                )
            )
            payloads = {str(one.id): one.payload or {} for one in marks}
            behind = await self._behind(payloads)
            texts = await self._texts([one for one in behind if isinstance(one, Mark) and not one.deleted])
        now = self._old.clock()
        told = [_changes(one, texts, now) for one in behind]
        return Page(len(marks), [one for one in told if one], sum(not one for one in told), further)

    async def _behind(self, payloads: Mapping[str, Mapping[str, Any]]) -> list[Mark | Document]:
        """Return the marks that the new collection does not have, or has of an older state; of a source, the change."""
        sources = {points.source_id(one[points.SOURCE]) for one in payloads.values()}
        found = await _payloads(self._new, [*payloads, *sources])
        behind = list[Mark | Document]()
        for name, payload in payloads.items():
            emptied = found.get(points.source_id(payload[points.SOURCE]), {}).get(points.VERSION)
            if emptied is not None and payload[points.VERSION] <= emptied:
                continue
            if payload[points.KIND] == points.OF_SOURCE:
                behind.append(_emptied(payload))
                continue
            mark = points.read_mark(payload)
            if name not in found or not covers(points.read_mark(found[name]), mark):
                behind.append(mark)
        return behind

    async def _texts(self, marks: Sequence[Mark]) -> Mapping[str, Mapping[str, Any]]:
        wanted = [name for mark in marks for name in _ids(mark)]
        found = dict[str, Mapping[str, Any]]()
        for start in range(0, len(wanted), READ):
            found |= await _payloads(self._old, wanted[start : start + READ])
        return found


def covers(new: Mark, old: Mark) -> bool:
    """Whether a collection that has `new` needs to be told nothing of `old`."""
    if new.version < old.version:
        return False
    if new.version == old.version and new.deleted != old.deleted:
        return new.deleted
    return new.deleted or old.deleted or new.texted >= old.texted


async def _payloads(place: Collection, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    read = await place.run(
        place.client.retrieve(place.name, list(ids), consistency=models.ReadConsistencyType.MAJORITY)
    )
    return {str(one.id): one.payload or {} for one in read}


def _ids(mark: Mark) -> list[str]:
    return [points.point_id(mark.source, mark.document, number) for number in range(mark.chunks)]


def _emptied(payload: Mapping[str, Any]) -> Document:
    told = {"source": payload[points.SOURCE], "version": payload[points.VERSION]}
    return Document(**told, id="", tenant="", title="", body="", emptied=True)


def _changes(one: Mark | Document, texts: Mapping[str, Mapping[str, Any]], now: float) -> Changes:
    """Say what is to be told of a document; nothing while its chunks are not those of its mark."""
    if isinstance(one, Document):
        return [one]
    if one.deleted:
        return _removal(one, now)
    held = [texts.get(name) for name in _ids(one)]
    told = [str(chunk[points.TEXT]) for chunk in held if chunk and chunk[points.BODY] == one.body]
    if len(told) < one.chunks or digest(told) != one.body:
        return []
    whole = _document(one, version=one.texted, body=_body(told, one.layout))
    if one.texted == one.version:
        return [whole]
    return [whole, _document(one, body_kept=True)]


def _removal(one: Mark, now: float) -> Changes:
    gone, held = _document(one, deleted=True), one.withheld
    if held is None or held.ms < (now - WITHHELD_SECONDS) * 1000 or not one.tenant:
        return [gone]
    return [_document(one, version=held.version, body=_body(held.texts, held.layout)), gone]


def _document(one: Mark, **more: Any) -> Document:
    told = {
        "source": one.source,
        "id": one.document,
        "tenant": one.tenant,
        "title": one.title,
        "body": "",
        "version": one.version,
        "fields": dict(one.fields),
        "committed_at_ms": one.committed_at_ms,
    }
    return Document.model_validate(told | more)


def _body(texts: Sequence[str], layout: Layout) -> str:
    laid = layout if len(layout) == len(texts) else ((0, None),) * len(texts)
    return body_of([Chunk(n, text, *laid[n]) for n, text in enumerate(texts)])
