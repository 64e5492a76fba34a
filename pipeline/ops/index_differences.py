"""How a source and the index differ in one document, and what mends it: values and two decisions, without I/O.

The version that a mended document gets must be one that no later change of its row falls behind. Changes of one row
come one after the other, so each is above what the index holds of the row, and an insert is above the deletion, or the
truncation, before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.audit_ports import Cut, IndexEntry, SourceRow
from pipeline.core.errors import Reject
from pipeline.core.index_ports import Chunk
from pipeline.core.payloads import Document

Kind = Literal["missing", "stale", "orphaned", "refused", "torn"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""missing: a row that is not in the index; stale: its document is another; orphaned: a document without a row; refused:
one whose row would be refused as it is now; torn: the points of a document do not fit together."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a row is to be in the index; a row that would be refused has no document. `content` is a content hash."""

    document: Document | None
    chunks: Sequence[Chunk] = ()
    content: str = ""
    refusal: str = ""
    unknown: bool = False

    @property
    def look(self) -> int:
        """A number that is another where the wish is."""
        told = self.document
        known = (told.tenant, told.title, *sorted(told.fields.items()), told.version) if told else ()
        return hash((known, self.content, self.refusal))


def wish(row: SourceRow, cut: Cut, content: Callable[[str, Sequence[str]], str]) -> Wish:
    """Say what a row is to be in the index."""
    if row.document is None:
        return Wish(None, refusal=row.refusal, unknown=row.unknown)
    try:
        document, chunks = cut(row.document)
    except Reject as error:
        return Wish(None, refusal=error.reason)
    return Wish(document, chunks, content(document.title, [chunk.text for chunk in chunks]))


def judge(wanted: Wish | None, entry: IndexEntry | None, *, mapped: bool) -> tuple[Kind, str] | None:
    """Say how a document differs, with the reason as a clause; None where it does not.

    `wanted` is None where there is no row; of a source that is not `mapped` to a table nothing is known but the index.
    """
    found = _against_row(wanted, entry) if mapped else None
    if found is None and entry and entry.damage and not (wanted and wanted.unknown):
        return "torn", entry.damage
    return found


def _against_row(wanted: Wish | None, entry: IndexEntry | None) -> tuple[Kind, str] | None:
    living = entry is not None and entry.living
    if wanted is None:
        return ("orphaned", "the table has no such row") if living else None
    if wanted.document is None:
        return ("refused", wanted.refusal) if living and not wanted.unknown else None
    if not wanted.chunks:
        return ("stale", "its row has no text") if living else None
    if entry is None or not living:
        if entry and entry.version is None:
            return None  # torn: what is left of it says more
        return "missing", "the index holds it as removed" if entry else "the index has nothing of it"
    parts = _parts(wanted.document, wanted.content, entry)
    return ("stale", f"another {', '.join(parts)}") if parts else None


def _parts(document: Document, content: str, entry: IndexEntry) -> list[str]:
    told = (("tenant", document.tenant, entry.tenant), ("title", document.title, entry.title))
    parts = [name for name, row, held in told if row != held]
    parts += [name for name in ["fields"] if document.fields != dict(entry.fields)]
    # The content hash covers the title, too.
    return parts + (["text"] if content != entry.content and "title" not in parts else [])


@dataclass(frozen=True, slots=True)
class Mend:
    """What is to be done: first what is to be discarded, then the document to be replaced, or removed (`deleted`).

    Where nothing can be done, `refusal` is the sentence why.
    """

    discard: Literal["", "surplus", "all"] = ""
    document: Document | None = None
    chunks: Sequence[Chunk] = ()
    refusal: str = ""


def mend(wanted: Wish | None, entry: IndexEntry | None, emptied: int | None, table: TableOf | None) -> Mend:
    """Say how to mend a document that differs. `emptied` is up to which version its source was."""
    damaged: Literal["", "all"] = "all" if entry and entry.damage else ""
    if table is None:
        if entry and entry.surplus:
            return Mend(discard="surplus")
        return Mend(refusal="no table has its text: write the document to its topic again, with a higher version")
    if wanted and wanted.document is None:
        return Mend(refusal="its row would be refused as it is now: mend the row, and the index follows")
    if wanted and wanted.document and wanted.chunks:
        return _replaced(wanted, wanted.document, entry, emptied, versioned=table.versioned, discard=damaged)
    if entry and entry.living and entry.version is not None:
        return Mend(damaged, _gone(table.source, entry, entry.version))
    return Mend(damaged)


@dataclass(frozen=True, slots=True)
class TableOf:
    """What is to be known of a source's table; `versioned`: a column tells the versions of its rows."""

    source: str
    versioned: bool


def _replaced(
    wanted: Wish,
    document: Document,
    entry: IndexEntry | None,
    emptied: int | None,
    *,
    versioned: bool,
    discard: Literal["", "all"],
) -> Mend:
    held = entry.version if entry else None
    # Nothing at or below this version can be written.
    closed = max([one for one in (held if entry and entry.deleted else None, emptied) if one is not None], default=None)
    living = held if entry and entry.living and (closed is None or held is None or held > closed) else None
    if versioned:
        if closed is not None and document.version <= closed:
            return Mend(
                refusal=f"its row has the version {document.version}, and was removed at {closed}: raise the row's"
            )
        version = document.version if living is None else max(document.version, living)
    else:
        version = living if living is not None else (0 if closed is None else closed) + 1
    return Mend(discard, document.model_copy(update={"version": version}), wanted.chunks)


def _gone(source: str, entry: IndexEntry, version: int) -> Document:
    return Document(
        source=source, id=entry.document, tenant=entry.tenant, title="", body="", version=version, deleted=True
    )
