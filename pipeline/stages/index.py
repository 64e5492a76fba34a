"""index: the vector index follows the documents of a source, version by version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Never

from pipeline.core.errors import Reject
from pipeline.core.event import Event
from pipeline.core.payloads import Document
from pipeline.core.ports import PassageStore
from pipeline.core.stage import Context
from pipeline.stages.chunking import chunk
from pipeline.stages.normalise import normalise

MAX_BODY = 500_000
"""The longest body that is indexed, in characters: about a book of 80,000 words."""
MAX_NAME = 1_000
"""The longest source, id, tenant or title, in characters."""


@dataclass(frozen=True)
class Index:
    """Replaces a document's chunks by those of a newer version, or removes them. An older version changes nothing."""

    store: PassageStore

    async def __call__(self, event: Event[Document], _ctx: Context) -> Sequence[Never]:
        """Index one state of one document; there is no output. Raises Reject for one that cannot be indexed.

        A document is no job of anybody, so what is wrong with it is a dead letter for a person, not a failure event.
        """
        document = event.payload
        check(document)
        chunks = () if document.deleted else chunk(normalise(document.body))
        if chunks:
            await self.store.replace(document.model_copy(update={"title": normalise(document.title)}), chunks)
        else:
            await self.store.remove(document)
        return ()


def check(document: Document) -> None:
    """Refuse a document that has no identity, or is larger than any that is meant to be found."""
    for field, text in (("source", document.source), ("id", document.id), ("tenant", document.tenant)):
        if not text:
            raise Reject(f"the document has an empty {field}", code="invalid_document")
    for field, text, most in (
        ("source", document.source, MAX_NAME),
        ("id", document.id, MAX_NAME),
        ("tenant", document.tenant, MAX_NAME),
        ("title", document.title, MAX_NAME),
        ("body", document.body, MAX_BODY),
    ):
        if len(text) > most:
            reason = f"the {field} of the document has {len(text)} characters; {most} are indexed"
            raise Reject(reason, code="document_too_large")
