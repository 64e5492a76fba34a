"""Passages and marks as points of a Qdrant collection: ids, payloads, filters and BM25 vectors. Pure, but for those.

Points are told apart by `kind`: a chunk has vectors and is found; a mark (of a document, of a source) has none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha1
from typing import Any

from qdrant_client import models
from qdrant_edge import Bm25, Bm25Config

from pipeline.clients.passage_marks import Held, Layout, Mark, Withheld
from pipeline.core.job import NAMESPACE
from pipeline.core.payloads import Passage

VECTOR = "bm25"
"""The name of the sparse vector."""
DENSE = "dense"
"""The name of the dense vector, where there is one."""
TENANT, SOURCE, DOCUMENT, CHUNK, VERSION = "tenant", "source", "document", "chunk", "version"
TITLE, TEXT, FIELDS = "title", "text", "fields"
KIND, STAMP, HASH, BODY, TEXTED = "kind", "stamp", "hash", "body", "texted"
CONTENT, CHUNKS, HIGH, DELETED = "content", "chunks", "high", "deleted"
LAYOUT = "layout"
COMMITTED, REMOVED, WITHHELD, WITHHELD_MS = "committed_at_ms", "removed_ms", "withheld", "withheld_ms"
OF_CHUNK, OF_DOCUMENT, OF_SOURCE = "chunk", "document", "source"
"""The kinds of points."""

INDEXES: Mapping[str, Any] = {
    # is_tenant lets the server keep each tenant's points together.
    TENANT: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    SOURCE: models.PayloadSchemaType.KEYWORD,
    DOCUMENT: models.PayloadSchemaType.KEYWORD,
    VERSION: models.PayloadSchemaType.INTEGER,
    CHUNK: models.PayloadSchemaType.INTEGER,
    KIND: models.PayloadSchemaType.KEYWORD,
    DELETED: models.PayloadSchemaType.BOOL,
    COMMITTED: models.PayloadSchemaType.INTEGER,
    REMOVED: models.PayloadSchemaType.INTEGER,
    WITHHELD_MS: models.PayloadSchemaType.INTEGER,
}
"""The payload indexes, made before anything is loaded."""

FORMAT = 1
"""How points are laid out; a collection of another layout is made anew."""
BM25_NAME = "bm25-1"
"""What makes the sparse vectors; another name makes all texts new."""
_AVERAGE_WORDS = 100.0  # of a chunk, stop words left out; BM25 weighs longer chunks down by it


class Embedder:
    """Makes sparse vectors offline. The inverse document frequency is left to the index (`Modifier.IDF`)."""

    def __init__(self) -> None:
        """Load the tokeniser and stemmer."""
        self._model = Bm25(Bm25Config(avg_len=_AVERAGE_WORDS))

    def document(self, title: str, text: str) -> models.SparseVector:
        """Embed a chunk with the title it stands under, which often holds the very words of a question."""
        vector = self._model.embed_document(f"{title}\n{text}")
        return models.SparseVector(indices=vector.indices, values=vector.values)

    def query(self, text: str) -> models.SparseVector | None:
        """Embed a question; None where it holds nothing but stop words, so that there is nothing to look for."""
        vector = self._model.embed_query(text)
        return models.SparseVector(indices=vector.indices, values=vector.values) if vector.indices else None


def point_id(source: str, document: str, chunk: int) -> str:
    """Name a chunk's point: the same chunk of the same document is the same point, whatever its version or tenant."""
    return _uuid5(json.dumps(["passage", source, document, chunk]))


def mark_id(source: str, document: str) -> str:
    """Name the point of a document's mark."""
    return _uuid5(json.dumps(["mark", source, document]))


def source_id(source: str) -> str:
    """Name the point of a source's mark."""
    return _uuid5(json.dumps(["emptied", source]))


def _uuid5(name: str) -> str:
    """Spell the UUIDv5 of a name (RFC 9562, section 5.5); `uuid.uuid5` takes four times as long, for each chunk."""
    made = bytearray(sha1(NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    made[6], made[8] = made[6] & 0x0F | 0x50, made[8] & 0x3F | 0x80
    told = made.hex()
    return f"{told[:8]}-{told[8:12]}-{told[12:16]}-{told[16:20]}-{told[20:]}"


_MARK = "mark "


def mark_stamp(stamp: str) -> str:
    """Return what a mark carries, where its chunks carry `stamp`: the two never fit the same condition."""
    return f"{_MARK}{stamp}"


def common(mark: Mark) -> dict[str, Any]:
    """Return what all chunks of a state carry, and what becomes of those of an earlier one whose text is unchanged."""
    return {
        TENANT: mark.tenant,
        VERSION: mark.version,
        TEXTED: mark.texted,
        FIELDS: dict(mark.fields),
        BODY: mark.body,
        STAMP: mark.stamp,
    }


def chunk_payload(mark: Mark, number: int, text: str, hashed: str) -> dict[str, Any]:
    """Return the payload of a chunk."""
    origin = {KIND: OF_CHUNK, SOURCE: mark.source, DOCUMENT: mark.document, CHUNK: number}
    return {**origin, TITLE: mark.title, TEXT: text, HASH: hashed, **common(mark)}


def mark_point(mark: Mark) -> models.PointStruct:
    """Make the point of a document's mark."""
    payload = {
        **common(mark),
        KIND: OF_DOCUMENT,
        SOURCE: mark.source,
        DOCUMENT: mark.document,
        TITLE: mark.title,
        CONTENT: mark.content,
        CHUNKS: mark.chunks,
        HIGH: mark.high,
        DELETED: mark.deleted,
        COMMITTED: mark.committed_at_ms,
        REMOVED: mark.removed_ms,
        LAYOUT: _laid(mark.layout),
        STAMP: mark_stamp(mark.stamp),
    }
    if mark.withheld:
        held = mark.withheld
        payload[WITHHELD] = {VERSION: held.version, "texts": list(held.texts), LAYOUT: _laid(held.layout)}
        payload[WITHHELD_MS] = mark.withheld.ms
    point = mark_id(mark.source, mark.document)
    return models.PointStruct(id=point, vector={}, payload={k: v for k, v in payload.items() if v is not None})


def source_point(source: str, version: int) -> models.PointStruct:
    """Make the point of a source's mark: emptied up to `version`."""
    payload = {KIND: OF_SOURCE, SOURCE: source, VERSION: version, STAMP: source_stamp(source, version)}
    return models.PointStruct(id=source_id(source), vector={}, payload=payload)


def source_stamp(source: str, version: int) -> str:
    """Return what the mark of a source carries."""
    return f"emptied {version} {source}"


def read_mark(payload: Mapping[str, Any]) -> Mark:
    """Read the mark of a document back. Raises ValueError for a point that is none."""
    try:
        held = payload.get(WITHHELD)
        return Mark(
            source=payload[SOURCE],
            document=payload[DOCUMENT],
            tenant=payload[TENANT],
            title=payload[TITLE],
            fields=payload[FIELDS],
            version=payload[VERSION],
            texted=payload[TEXTED],
            content=payload[CONTENT],
            body=payload[BODY],
            chunks=payload[CHUNKS],
            committed_at_ms=payload.get(COMMITTED),
            deleted=payload[DELETED],
            high=payload[HIGH],
            removed_ms=payload.get(REMOVED),
            withheld=Withheld(held[VERSION], payload[WITHHELD_MS], held["texts"], _layout(held)) if held else None,
            layout=_layout(payload),
            stamp=payload[STAMP].removeprefix(_MARK),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"the mark of a document has no {error}") from None


def _laid(layout: Layout) -> list[list[Any]]:
    return [list(one) for one in layout]


def _layout(payload: Mapping[str, Any]) -> Layout:
    return tuple((overlap, gap) for overlap, gap in payload.get(LAYOUT) or ())


def read_held(payload: Mapping[str, Any]) -> Held:
    """Read what is to be known of a chunk. Raises ValueError for a point that is none."""
    try:
        age = (payload[VERSION], payload[TEXTED])
        return Held(payload[CHUNK], payload[HASH], payload[STAMP], payload[BODY], age, payload.get(TEXT))
    except KeyError as error:
        raise ValueError(f"a chunk has no {error}") from None


def make_passage(point: models.ScoredPoint) -> Passage:
    """Read a point back. Raises ValueError for one that this program did not write."""
    payload = point.payload or {}
    names = (SOURCE, DOCUMENT, CHUNK, VERSION, TITLE, TEXT)
    return Passage.model_validate({"score": point.score, **{name: payload.get(name) for name in names}})


def fence(stamps: Collection[str]) -> models.Filter:
    """Select points that are as they were read, by their stamps; none at all where none was there."""
    return models.Filter(must=[_among(STAMP, sorted(stamps) or [_NEVER])])


def chunks_of(source: str, document: str, wanted: Mapping[str, Sequence[int]]) -> models.Filter:
    """Select chunks of a document by their numbers, as long as they carry the stamp that was read.

    By the points' ids, which come first: the embedded engine looks at every point, one condition after the other.
    """
    ids = [point_id(source, document, number) for numbers in wanted.values() for number in numbers]
    groups = [models.Filter(must=[_among(CHUNK, list(n)), _equals(STAMP, stamp)]) for stamp, n in wanted.items()]
    named = [_equals(DOCUMENT, document), _equals(SOURCE, source)]
    return models.Filter(must=[models.HasIdCondition(has_id=[*ids]), *named, models.Filter(should=[*groups])])


def mark_of(mark: Mark) -> models.Filter:
    """Select the mark of a document, as long as it is what was read."""
    only = models.HasIdCondition(has_id=[mark_id(mark.source, mark.document)])
    named = [_equals(DOCUMENT, mark.document), _equals(SOURCE, mark.source)]
    return models.Filter(must=[only, *named, _equals(STAMP, mark_stamp(mark.stamp))])


def emptied(source: str, version: int) -> models.Filter:
    """Select all of a source up to a version, chunks and marks, but for the mark of the source itself."""
    upto = models.FieldCondition(key=VERSION, range=models.Range(lte=version))
    return models.Filter(must=[_equals(SOURCE, source), upto], must_not=[_equals(KIND, OF_SOURCE)])


def forgotten(before_ms: int) -> models.Filter:
    """Select the marks of documents that were removed before a time."""
    return models.Filter(must=[_equals(KIND, OF_DOCUMENT), _equals(DELETED, True), _before(REMOVED, before_ms)])


def withheld_before(before_ms: int) -> models.Filter:
    """Select the marks that withhold a text since before a time."""
    return models.Filter(must=[_equals(KIND, OF_DOCUMENT), _before(WITHHELD_MS, before_ms)])


def any_mark() -> models.Filter:
    """Select the marks of documents and of sources."""
    return models.Filter(should=[of_kind(OF_DOCUMENT), of_kind(OF_SOURCE)])


def of_kind(kind: str, source: str | None = None) -> models.Filter:
    """Select all points of a kind, of one source or of all."""
    return models.Filter(must=[_equals(KIND, kind), *([] if source is None else [_equals(SOURCE, source)])])


def removed(source: str) -> models.Filter:
    """Select the marks of a source's removed documents."""
    return models.Filter(must=[of_kind(OF_DOCUMENT, source), _equals(DELETED, True)])


_NEVER = "never"


def _before(name: str, ms: int) -> models.FieldCondition:
    return models.FieldCondition(key=name, range=models.Range(lt=ms))


def _among(name: str, values: list[str] | list[int]) -> models.FieldCondition:
    return models.FieldCondition(key=name, match=models.MatchAny(any=values))


def _equals(name: str, value: str | bool) -> models.FieldCondition:
    return models.FieldCondition(key=name, match=models.MatchValue(value=value))
