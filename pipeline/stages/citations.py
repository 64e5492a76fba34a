"""Citations: the `[n]` of an answer, and the passages that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipeline.core.payloads import Citation, Passage

# [1], [1, 2], [1][3]; three digits at most, so that a year or a reference number in brackets is not taken for one.
_CITED = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]", re.ASCII)


def cited_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers that `text` cites, each once, in order of first appearance."""
    numbers = (int(number) for match in _CITED.finditer(text) for number in match[1].split(","))
    return tuple(dict.fromkeys(numbers))


def resolve(numbers: Iterable[int], passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """Return the passages that `numbers` name, counted from 1; a number that names none is dropped.

    A model that invents a number has told us nothing about a source, and its text may hold brackets of its own.
    """
    known = (number for number in dict.fromkeys(numbers) if 1 <= number <= len(passages))
    return tuple(_citation(number, passages[number - 1]) for number in known)


def _citation(number: int, passage: Passage) -> Citation:
    return Citation(
        number=number,
        source=passage.source,
        document=passage.document,
        chunk=passage.chunk,
        version=passage.version,
        title=passage.title,
    )
