"""What stages need of the vector index, and what the index needs: Protocols, and the values that go through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.core.payloads import Document, Nothing, Passage


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document as it goes into the index; `number` counts from 0.

    The first `overlap` characters of `text` are there so that it stands for itself: headings, and what the chunk before
    ends with. What is left continues the chunk before; an `overlap` of 0 begins anew, as after an empty line.
    `gap` is the white space in the body before what is left; None where that is not told.
    """

    number: int
    text: str
    overlap: int = 0
    gap: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for. The tenant is part of the query itself, and all of `filters` must hold.

    A filter named tenant, source, document or title is about the passage itself, any other about a field of the
    document. What no document has, a name that could be none included, is found nowhere.
    Passages that score below `threshold` are left out, and of one document no more than `per_document` are returned.
    Each is widened by as many `neighbours` on both sides as its document has, and as the rest of `tokens` (estimated,
    for all passages together) has room for; passages that meet become one. A passage too large for it is left out.
    """

    tenant: str
    text: str
    limit: int
    filters: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    per_document: int | None = None
    neighbours: int = 0
    tokens: int | None = None


class PassageSearch(Protocol):
    """Reads the vector index."""

    async def search(self, wanted: Search) -> Sequence[Passage]:
        """Find the best passages, best first; an empty index finds none.

        Raises Defer where the index is away, Retry where it errs.
        """
        ...


class Freshness(Protocol):
    """Knows how far the index has followed its sources."""

    async def caught_up(self, source: str, version: int, asker: str) -> bool:
        """Whether what `source` held at `version` is in the index, or something newer; once True, it stays so.

        `asker` is an id; who asks again until it is True asks with the same. Raises Fail where nobody can tell that of
        this source, Defer where it cannot be found out now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Indexed:
    """What storing a document came to, in chunks. `stale`: the index holds a newer version, so nothing was changed."""

    stale: bool = False
    written: int = 0
    kept: int = 0
    removed: int = 0
    tokens: int = 0


class PassageStore(Protocol):
    """Writes the vector index. Whatever the order of calls, it ends in the newest version of each document.

    Doing anything twice changes nothing, embeds nothing and writes nothing. Each raises Defer where the index or the
    embedding model is away, Retry where one errs.
    """

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Make `chunks` the whole of the document. What is there already is neither embedded nor written again."""
        ...

    async def keep(self, document: Document) -> Indexed | None:
        """Give a document whose body is unchanged its new title, fields and version; None where no text is known."""
        ...

    async def remove(self, document: Document) -> Indexed:
        """Remove the document; an older version of it that comes late does not bring it back."""
        ...

    async def empty(self, source: str, version: int) -> Indexed:
        """Remove all documents of a source that are not newer than `version`."""
        ...


class Rereads(Protocol):
    """Reads documents' rows again, for what a change does not tell."""

    async def reread(self, document: Document) -> Document | Nothing | None:
        """Add the body that the row has now to a document whose body is kept; its version stays.

        Nothing where the row is gone, None where no query is configured for the source. Raises Reject for a row that
        makes no document, Defer where the database is away, Retry where it refuses the query.
        """
        ...


class RowQueries(Protocol):
    """Asks the source database for single rows."""

    async def row(self, query: str, key: str) -> Mapping[str, object] | None:
        """Ask for the row of a key, as its columns by name; None where there is none.

        Raises Defer where the database is away or only a copy that may lag, Retry where it refuses the query.
        """
        ...

    async def columns(self, query: str) -> Sequence[str]:
        """Name the columns that a query returns. Raises what `row` raises."""
        ...


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vectors of some texts, in their order, and what they cost."""

    vectors: Sequence[Sequence[float]]
    tokens: int


class Embedder(Protocol):
    """Turns texts into dense vectors. Gathers concurrent calls into requests; never retries by itself."""

    @property
    def model(self) -> str:
        """The model's name, which the index records: vectors of two models do not compare."""
        ...

    async def embed(self, texts: Sequence[str]) -> Embedding:
        """Embed some texts. Raises Defer (rate limit, away, a wrong key), Retry (an answer that is not as asked for:
        too few vectors, of another length, not finite) and Reject (the provider refuses a text)."""
        ...
