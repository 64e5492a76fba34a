"""index: the vector index follows the documents of a source, version by version."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Never

from pipeline.core.errors import Reject, Retry
from pipeline.core.event import Event
from pipeline.core.index_ports import Chunk, PassageStore, Rereads
from pipeline.core.payloads import Document
from pipeline.core.stage import Context
from pipeline.stages.chunking import chunk
from pipeline.stages.normalise import normalise

MAX_BODY = 500_000
"""The longest body that is indexed, in characters: about a book of 80,000 words."""
MAX_NAME = 1_000
"""The longest source, id, tenant or title, in characters."""
APART = 16_384
"""A body of more characters is cut in a thread of its own: it takes seconds at worst, and nothing else may wait."""


@dataclass(frozen=True)
class Index:
    """Replaces a document's chunks by those of a newer version, or removes them. An older version changes nothing."""

    store: PassageStore
    rereads: Rereads

    async def __call__(self, event: Event[Document], _ctx: Context) -> Sequence[Never]:
        """Index one state of one document; there is no output. Raises Reject for one that cannot be indexed.

        A document is no job of anybody, so what is wrong with it is a dead letter for a person, not a failure event.
        """
        document = event.payload
        if document.emptied:
            check_source(document)
            await self.store.empty(document.source, document.version)
            return ()
        document, chunks = await _cut(document)
        if document.body_kept and not document.deleted:
            await self._keep(document)
        else:
            await self._replace(document, chunks)
        return ()

    async def _replace(self, document: Document, chunks: Sequence[Chunk]) -> None:
        if chunks:
            await self.store.replace(document, chunks)
        else:
            await self.store.remove(document)

    async def _keep(self, document: Document) -> None:
        if await self.store.keep(document) is not None:
            return
        whole = await self.rereads.reread(document)
        if whole is None:
            # Out of order, or in another partition after a change of its key: the text may still come.
            raise Retry("the change does not tell the document's body, and the index has none of it", code="no_body")
        # Of a row that is gone nothing is owed: the change that took it away comes later, and has a higher version.
        if isinstance(whole, Document):
            await self._replace(*await _cut(whole))


def cut(document: Document) -> tuple[Document, Sequence[Chunk]]:
    """Make what is indexed of one state of a document: itself with its title normalised, and the chunks that it tells.

    Raises Reject for one that cannot be indexed.
    """
    check(document)
    chunks = () if document.deleted or document.body_kept else chunk(normalise(document.body))
    return document.model_copy(update={"title": normalise(document.title)}), chunks


async def _cut(document: Document) -> tuple[Document, Sequence[Chunk]]:
    return cut(document) if len(document.body) <= APART else await asyncio.to_thread(cut, document)


def check_source(document: Document) -> None:
    """Refuse a document that names no source."""
    if not document.source:
        raise Reject("the document has an empty source", code="invalid_document")


def check(document: Document) -> None:
    """Refuse a document that has no identity, or is larger than any that is meant to be found."""
    check_source(document)
    for field, text in (("id", document.id), ("tenant", document.tenant)):
        # A deletion may not tell whose it was, where its source keeps no more than the key of what it deletes.
        if not text and not (field == "tenant" and document.deleted):
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
