"""What becomes of the passages that an index finds: which are kept, and what of their surroundings comes along."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count

from pipeline.core.index_ports import Chunk
from pipeline.core.limits import estimate_tokens
from pipeline.core.payloads import Passage

Origin = tuple[str, str, int]
"""Source, document and version: the chunks of one origin make up one text."""
Texts = Mapping[Origin, Mapping[int, Chunk]]
"""Chunks by their origin and number."""

MIN_OVERLAP = 16
"""Fewer characters that the end of one chunk and the start of the next have in common are chance, not an overlap."""
_JOINT = "\n\n"


def origin_of(passage: Passage) -> Origin:
    """Say which text a passage is a part of."""
    return passage.source, passage.document, passage.version


def diverse(found: Iterable[Passage], limit: int, per_document: int | None) -> tuple[Passage, ...]:
    """Keep the first `limit` passages, with no more than `per_document` of one document."""
    seen: dict[tuple[str, str], int] = {}
    kept: list[Passage] = []
    for passage in found:
        name = (passage.source, passage.document)
        if len(kept) < limit and (per_document is None or seen.get(name, 0) < per_document):
            seen[name] = seen.get(name, 0) + 1
            kept.append(passage)
    return tuple(kept)


def fitting(found: Iterable[Passage], limit: int, tokens: int) -> tuple[Passage, ...]:
    """Keep the first `limit` passages that fit into `tokens` together, estimated.

    One that does not fit is left out whole, since half a passage misleads; a smaller one after it may still fit.
    """
    kept: list[Passage] = []
    for passage in found:
        cost = estimate_tokens(passage.text)
        if len(kept) < limit and cost <= tokens:
            kept.append(passage)
            tokens -= cost
    return tuple(kept)


def near(found: Iterable[Passage], neighbours: int) -> dict[Origin, set[int]]:
    """Name the chunks that `widened` wants to know: up to `neighbours` on both sides of each passage."""
    wanted: dict[Origin, set[int]] = {}
    for passage in found:
        around = range(max(0, passage.chunk - neighbours), passage.chunk + neighbours + 1)
        wanted.setdefault(origin_of(passage), set()).update(around)
    return wanted


def widened(found: Sequence[Passage], texts: Texts, neighbours: int, tokens: int | None = None) -> tuple[Passage, ...]:
    """Widen each passage by up to `neighbours` chunks on both sides, as far as `texts` has them in an unbroken row.

    Passages whose rows meet become one, in the place and with the score and chunk number of the best of them, so that
    no chunk comes twice; what a chunk repeats comes once. Widening never costs a passage: what is found comes
    first, then its surroundings, the nearest first, as far as `tokens` (estimated) have room.
    """
    room = math.inf if tokens is None else tokens - sum(_cost(passage.text) for passage in found)
    if not neighbours or room < 0:
        return tuple(found)
    rows = _rows(found, texts, neighbours, room)
    widest: list[Passage] = []
    given: set[tuple[Origin, int]] = set()
    for passage in found:
        origin = origin_of(passage)
        if (origin, passage.chunk) not in given:
            numbers = _row(rows[origin], passage.chunk)
            given.update((origin, number) for number in numbers)
            text = joined([rows[origin][number] for number in numbers])
            widest.append(passage.model_copy(update={"text": text}))
    return tuple(widest)


def joined(chunks: Sequence[Chunk]) -> str:
    """Join chunks that follow each other, without what they repeat.

    Where a chunk does not say what that is, it is what it begins with and the one before ends with.
    """
    whole = ""
    for chunk in chunks:
        known = chunk.overlap or _overlap(whole, chunk.text)
        whole = f"{whole}{chunk.text[known:]}" if known and whole else f"{whole}{_JOINT if whole else ''}{chunk.text}"
    return whole


def spaced(body: str, chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
    """Tell of each chunk which white space of `body` is before what it has of its own."""
    told, place = list[Chunk](), 0
    for chunk in chunks:
        own = chunk.text[chunk.overlap :].lstrip()
        start = body.index(own, place)
        told.append(replace(chunk, gap=body[place:start]))
        place = start + len(own)
    return tuple(told)


def body_of(chunks: Sequence[Chunk]) -> str:
    """Put a body together again of all its chunks: the very text they were cut from, where they tell their gaps."""
    if any(chunk.gap is None for chunk in chunks):
        return joined(chunks)
    return "".join(f"{chunk.gap}{chunk.text[chunk.overlap :].lstrip()}" for chunk in chunks)


def _rows(found: Sequence[Passage], texts: Texts, neighbours: int, room: float) -> dict[Origin, dict[int, Chunk]]:
    """Choose chunks around what was found, none before the one between."""
    rows: dict[Origin, dict[int, Chunk]] = {}
    for passage in found:
        own = Chunk(passage.chunk, passage.text)
        known = texts.get(origin_of(passage), {}).get(passage.chunk, own)
        # It may have been cut anew since it was found.
        rows.setdefault(origin_of(passage), {})[passage.chunk] = known if known.text == own.text else own
    steps = ((passage, way * far) for far in range(1, neighbours + 1) for passage in found for way in (-1, 1))
    for passage, step in steps:
        row, number = rows[origin_of(passage)], passage.chunk + step
        chunk = texts.get(origin_of(passage), {}).get(number)
        inner = number - (1 if step > 0 else -1)
        if chunk is not None and number not in row and inner in row and _cost(chunk.text) <= room:
            row[number] = chunk
            room -= _cost(chunk.text)
    return rows


def _row(known: Mapping[int, Chunk], number: int) -> range:
    first = next(n for n in count(number, -1) if n - 1 not in known)
    last = next(n for n in count(number) if n + 1 not in known)
    return range(first, last + 1)


def _cost(text: str) -> int:
    return estimate_tokens(text) + estimate_tokens(_JOINT)


def _overlap(before: str, after: str) -> int:
    """Count the characters by which `after` begins as `before` ends, from the edge of a word to the edge of a word."""
    start = before.find(after[:MIN_OVERLAP]) if len(after) >= MIN_OVERLAP else -1
    while start >= 0:
        common = len(before) - start
        if after.startswith(before[start:]) and _edge(before, start) and _edge(after, common):
            return common
        start = before.find(after[:MIN_OVERLAP], start + 1)
    return 0


def _edge(text: str, place: int) -> bool:
    """Whether no word goes on over this place."""
    return not (text[:place][-1:].isalnum() and text[place : place + 1].isalnum())
