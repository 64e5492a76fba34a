"""Passages as points of a Qdrant collection: ids, payloads, filters and BM25 vectors. Pure, but for the embedder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid5

from qdrant_client import models
from qdrant_edge import Bm25, Bm25Config

from pipeline.core.job import NAMESPACE
from pipeline.core.payloads import Document, Passage
from pipeline.core.ports import Chunk

VECTOR = "bm25"
"""The name of the sparse vector."""
TENANT, SOURCE, DOCUMENT, CHUNK, VERSION = "tenant", "source", "document", "chunk", "version"
TITLE, TEXT = "title", "text"

INDEXES: Mapping[str, Any] = {
    # is_tenant lets the server keep each tenant's points together.
    TENANT: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    SOURCE: models.PayloadSchemaType.KEYWORD,
    DOCUMENT: models.PayloadSchemaType.KEYWORD,
    VERSION: models.PayloadSchemaType.INTEGER,
    CHUNK: models.PayloadSchemaType.INTEGER,
}
"""The payload indexes, made before anything is loaded."""

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
    return str(uuid5(NAMESPACE, json.dumps(["passage", source, document, chunk])))


def make_points(document: Document, chunks: Sequence[Chunk], embedder: Embedder) -> list[models.PointStruct]:
    """Make the points of a document."""
    return [
        models.PointStruct(
            id=point_id(document.source, document.id, chunk.number),
            vector={VECTOR: embedder.document(document.title, chunk.text)},
            payload={
                TENANT: document.tenant,
                SOURCE: document.source,
                DOCUMENT: document.id,
                CHUNK: chunk.number,
                VERSION: document.version,
                TITLE: document.title,
                TEXT: chunk.text,
            },
        )
        for chunk in chunks
    ]


def make_passage(point: models.ScoredPoint) -> Passage:
    """Read a point back. Raises ValueError for one that this program did not write."""
    payload = point.payload or {}
    names = (SOURCE, DOCUMENT, CHUNK, VERSION, TITLE, TEXT)
    return Passage.model_validate({"score": point.score, **{name: payload.get(name) for name in names}})


def visible_to(tenant: str, filters: Mapping[str, str]) -> models.Filter:
    """Select what a tenant may see, narrowed by `filters`. All must hold, so no filter can widen it."""
    wanted = [(TENANT, tenant), *filters.items()]
    return models.Filter(must=[_equals(name, value) for name, value in wanted])


def newer(document: Document) -> models.Filter:
    """Select the document's chunks of a later version than its own."""
    return _of(document, models.Range(gt=document.version))


def stale(document: Document, chunks: int) -> models.Filter:
    """Select the document's chunks of earlier versions, and those of its own beyond its number of chunks."""
    beyond = models.FieldCondition(key=CHUNK, range=models.Range(gte=chunks))
    older = models.FieldCondition(key=VERSION, range=models.Range(lt=document.version))
    return _of(document, models.Range(lte=document.version), models.Filter(should=[older, beyond]))


def up_to(document: Document) -> models.Filter:
    """Select the document's chunks that are not newer than it."""
    return _of(document, models.Range(lte=document.version))


def _of(document: Document, versions: models.Range, *more: models.Condition) -> models.Filter:
    version = models.FieldCondition(key=VERSION, range=versions)
    return models.Filter(must=[_equals(SOURCE, document.source), _equals(DOCUMENT, document.id), version, *more])


def _equals(name: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=name, match=models.MatchValue(value=value))
