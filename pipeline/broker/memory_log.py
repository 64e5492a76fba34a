"""One partition in memory: its records, its transactions' markers, and what of both a reader may see. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.core.record import Partition, Record


class Log:
    """Records from offset `low` on, without gaps: a marker has an offset and a place, and is no record to a reader."""

    def __init__(self) -> None:
        """Begin empty."""
        self.records: list[Record] = []
        self.low = 0
        self._open: dict[object, list[int]] = {}
        self._hidden: set[int] = set()

    @property
    def high(self) -> int:
        """The next offset to be written."""
        return self.low + len(self.records)

    @property
    def stable(self) -> int:
        """The last stable offset: what stands from here on may be hidden yet, whoever wrote it."""
        return min((offsets[0] for offsets in self._open.values()), default=self.high)

    @property
    def transactional(self) -> bool:
        """Whether any transaction has written here."""
        return bool(self._open or self._hidden)

    def append(self, record: Record, transaction: object) -> None:
        """Add a record, which has the next offset."""
        self.records.append(record)
        if transaction is not None:
            self._open.setdefault(transaction, []).append(record.offset)

    def end(self, transaction: object, name: Partition, *, committed: bool) -> None:
        """Show or hide for good what a transaction has written, and add its marker."""
        offsets = self._open.pop(transaction, None)
        if offsets is None:
            return
        if not committed:
            self._hidden.update(offsets)
        self._hidden.add(self.high)
        self.records.append(Record(*name, self.high, None, None))

    def scan(self, offset: int, limit: int) -> tuple[list[Record], int]:
        """Return up to `limit` records that are there for good, and the offset to read on from."""
        found: list[Record] = []
        while offset < self.stable and len(found) < limit:
            if offset not in self._hidden:
                found.append(self.records[offset - self.low])
            offset += 1
        return found, offset

    def visible(self) -> Iterator[Record]:
        """Go through the records of no transaction and of committed ones."""
        hidden = self._hidden.union(*self._open.values())
        return (record for record in self.records if record.offset not in hidden)

    def trim(self, below: int) -> None:
        """Delete the records below an offset."""
        kept = min(max(below, self.low), self.high)
        del self.records[: kept - self.low]
        self.low = kept
