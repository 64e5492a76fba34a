"""What an audit of the index needs: the rows of a source as documents, and what the index holds of each of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.core.index_ports import Chunk
from pipeline.core.payloads import Document

RowTexts = Mapping[str, str | None]
"""A row as its database spells it: the text of each column, None where it is null."""

Cut = Callable[[Document], tuple[Document, Sequence[Chunk]]]
"""What the index makes of a document's state: the document as it is stored, and its chunks. Raises Reject."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type in PostgreSQL: its name (of a domain, that of what it is made of) and its modifier.

    `schema` is where the type lives. `kind` is b (base), e (enum) or another letter of `pg_type.typtype`; an `array`
    holds any type.
    """

    name: str
    modifier: int = -1
    schema: str = "pg_catalog"
    kind: str = "b"
    array: bool = False


Types = Mapping[str, ColumnType]
"""The types of a table's columns, by name."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row as its next change would tell it: a document, or why it would be refused.

    `id` is empty where the row has none. The document's version is 0 where versions are those of the database's log,
    which rows do not tell. `unknown`: it is not known what the change would tell, so it may be refused or not.
    """

    id: str
    document: Document | None
    refusal: str = ""
    unknown: bool = False


class RowReader(Protocol):
    """Makes documents of one table's rows, and finds the row of a document."""

    def check(self, types: Types) -> None:
        """Look whether rows of these columns can be read. Raises ConfigurationError for a type that is not known."""
        ...

    def read(self, row: RowTexts, types: Types) -> SourceRow:
        """Read one row."""
        ...

    def locate(self, document: str, types: Types) -> Sequence[str] | None:
        """Say what the columns of the id hold in the row of a document, as the database spells it; None for no row.

        Raises Reject where it is not known how the database spells it.
        """
        ...


class SourceRows(Protocol):
    """The rows of one table. Each raises Defer where the database is away, Retry where it refuses."""

    async def prepare(self) -> None:
        """Look whether all can be read. Raises ConfigurationError that says what is missing, and what to do."""
        ...

    async def count(self) -> int:
        """Estimate the number of rows."""
        ...

    def pages(self) -> AsyncGenerator[Sequence[SourceRow], None]:
        """Read all rows as they were at one moment, some at a time. To be closed: it holds a connection."""
        ...

    async def some(self, number: int) -> Sequence[SourceRow]:
        """Draw rows at random."""
        ...

    async def one(self, document: str) -> SourceRow | None:
        """Read the row of a document as it is now; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Key:
    """The state of one document. `hash` is that of its title and chunks, by what embeds them (`IndexEntries.content`).

    A document without any text is `deleted`, too: there is nothing of it to be found.
    """

    document: str
    version: int
    hash: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What the index holds of one document. `version` is None where it has no mark, or one that somebody altered.

    `stamp` changes with whatever is held. `damage` says what does not fit together, in a clause; it is `surplus` alone
    where it would be mended by taking chunks away.
    """

    document: str
    version: int | None = None
    deleted: bool = False
    tenant: str = ""
    title: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    content: str = ""
    stamp: str = ""
    damage: str = ""
    surplus: bool = False

    @property
    def living(self) -> bool:
        """Whether a mark says that the document is there."""
        return self.version is not None and not self.deleted


class IndexEntries(Protocol):
    """What the index holds, for an audit. Each raises Defer where the index is away, Retry where it errs."""

    def content(self, title: str, texts: Sequence[str]) -> str:
        """Return the content hash of a document that has these chunks."""
        ...

    async def sources(self) -> Sequence[str]:
        """Name the sources of which anything is held."""
        ...

    async def marked(self, source: str) -> int:
        """Count the marks of a source, those of removed documents included."""
        ...

    def keys(self, source: str) -> AsyncIterator[Key]:
        """List the documents of a source by their marks, removed ones included."""
        ...

    def chunked(self, source: str) -> AsyncIterator[Sequence[str]]:
        """List the documents of all chunks, some at a time; the same may come often."""
        ...

    async def draw(self, source: str, number: int) -> Sequence[str]:
        """Draw documents that have a mark at random."""
        ...

    async def entries(self, source: str, documents: Sequence[str]) -> Mapping[str, IndexEntry]:
        """Read all that is held of some documents; those of which nothing is held are left out."""
        ...

    async def emptied(self, source: str) -> int | None:
        """Return up to which version a source was emptied; None where it was not."""
        ...

    async def discard(self, source: str, document: str, *, surplus: bool) -> None:
        """Take away the points of a document that do not fit together, as long as they are what is read now.

        With `surplus`, chunks that no mark counts alone: the others hold a text that nobody could write again.
        """
        ...
