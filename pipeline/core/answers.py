"""What a record on a followed topic says of the records of its stage (design section 7), by its headers alone.

A costly stage stamps what it writes with the position of the record that it settles. So what was written once is found
again exactly: through tiers, replays and equal ids, whatever the clocks of its writers said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.core import headers as h
from pipeline.core.job import child_id
from pipeline.core.record import Position, Record

EventKey = tuple[str, int]
"""An event's id and run."""


class Word(NamedTuple):
    """What one record says: it is `part` (from 0) of `total` of what settles the record at `settles`.

    `stamp` is that record's timestamp, None where it is not told. `event` is the event that it answers wherever that
    stands; None for a copy, whose event is still open.
    """

    settles: Position | None
    event: EventKey | None = None
    part: int = 0
    total: int = 1
    stamp: int | None = None


def output_word(record: Record) -> Word:
    """Read an output: it answers its parent, together with the other outputs of the same call."""
    read = h.texts(record.headers)
    if h.TRY in read:
        return Word(None)  # it tells of a try that may have come to anything
    first, _, count = read.get(h.OUTPUT, "").partition("/")
    total = max(h.count(count), 1)
    settles, stamp = _settles(read, read.get(h.SOURCE))
    return Word(settles, _parent(read), min(h.count(first), total - 1), total, stamp)


def failure_word(record: Record, stage: str) -> Word | None:
    """Read a failure event; None where it is another stage's.

    One that tells of a dead letter settles the record together with that. It answers no event: that may be replayed.
    """
    read = h.texts(record.headers)
    parent = _parent(read)
    told = read.get(h.CE_ID)
    if parent is None or told is None:
        return None
    settles, stamp = _settles(read, read.get(h.SOURCE))
    if told == child_id(parent[0], f"{stage}.failure", 0, parent[1]):
        return Word(settles, parent, stamp=stamp)
    dead = told == child_id(parent[0], f"{stage}.dead", 0, parent[1])
    return Word(settles, None, 1, 2, stamp) if dead else None


def copy_word(record: Record) -> Word:
    """Read a copy in a tier: it settles what it was copied from, and nothing else."""
    read = h.texts(record.headers)
    settles, stamp = _settles(read, read.get(h.ORIGINAL))
    return Word(settles, stamp=stamp)


def dead_word(record: Record) -> Word:
    """Read a dead letter: it settles what it was copied from together with the failure event that tells of it.

    Without that its job would never end; a crash in between makes the record one that was in hand.
    """
    return copy_word(record)._replace(total=2)


def _parent(read: Mapping[str, str]) -> EventKey | None:
    parent = read.get(h.PARENT)
    return (parent, h.count(read.get(h.RUN))) if parent else None


def _settles(read: Mapping[str, str], otherwise: str | None) -> tuple[Position | None, int | None]:
    # What was written before this header existed tells at least where its record first stood.
    return h.settled(read.get(h.SETTLES) or otherwise) or (None, None)
