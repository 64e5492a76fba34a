"""How well passages are found: our own labelled set, by words, by meaning, and by both.

Documents and questions are in `tests/data/retrieval/`: short texts of three tenants with subjects in common, and
questions with the documents that answer them. Half of the questions have the words of their answer, half have others,
other forms of them, or mistakes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from pipeline.clients.passage_query import Part
from pipeline.clients.passage_search import PassageFinder
from pipeline.core.index_ports import Embedding, Search
from pipeline.core.payloads import Document
from pipeline.stages.chunking import chunk
from tests.bench.figures import Figure, at_least, ratios
from tests.bench.lab import Lab
from tests.clients.qdrant_filled import BM25, filled
from tests.contracts.passage_search_contract import Held

FOLDER = Path(__file__).parents[1] / "data" / "retrieval"
PASSAGES = 5
PARTS: Mapping[str, Sequence[Part]] = {"words": ("sparse",), "meaning": ("dense",), "both": ("sparse", "dense")}
DIMENSION = 768

_WORD = re.compile(r"\w+")


class Grams:
    """A dense embedder without a network or a model: hashed pieces of words, so that kindred spellings are near."""

    model = "grams-1"

    async def embed(self, texts: Sequence[str]) -> Embedding:
        """Embed some texts; see the port."""
        return Embedding([_vector(text) for text in texts], 0)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and which documents answer it. `by` is how they can be found: by its words, or its meaning."""

    tenant: str
    by: str
    text: str
    answers: frozenset[str]


def documents() -> Held:
    """Read the documents, cut into chunks."""
    read = (Document(source="set", version=1, **one) for one in _lines("documents.jsonl"))
    return [(one, chunk(one.body)) for one in read]


def questions() -> list[Question]:
    """Read the questions."""
    return [Question(**{**one, "answers": frozenset(one["answers"])}) for one in _lines("questions.jsonl")]


async def recalls(parts: Sequence[Part], held: Held, asked: Sequence[Question]) -> list[float]:
    """Say of each question which share of the documents that answer it is among the first five passages."""
    async with filled(held, Grams()) as place:
        search = PassageFinder(place, BM25, parts)
        found = [{one.document for one in await search.search(Search(q.tenant, q.text, PASSAGES))} for q in asked]
    return [len(q.answers & names) / len(q.answers) for q, names in zip(asked, found, strict=True)]


async def measured() -> dict[str, dict[str, float]]:
    """Measure recall@5 by each of `PARTS`: over all questions, and over those of each kind."""
    held, asked = documents(), questions()
    kinds = sorted({one.by for one in asked})
    table = {}
    for name, parts in PARTS.items():
        each = await recalls(parts, held, asked)
        split = {kind: [r for r, q in zip(each, asked, strict=True) if q.by == kind] for kind in kinds}
        table[name] = {"all": _mean(each), **{kind: _mean(values) for kind, values in split.items()}}
    return table


def told(table: Mapping[str, Mapping[str, float]]) -> str:
    """Write the table for people, one line for each way of finding."""
    kinds = list(next(iter(table.values())))
    head = f"{'recall@5 found by':<20}" + "".join(
        f"{f'asked by {kind}' if kind != 'all' else kind:>20}" for kind in kinds
    )
    return "\n".join(
        [head, *(f"{name:<20}" + "".join(f"{row[k]:>20.3f}" for k in kinds) for name, row in table.items())]
    )


async def quality(_lab: Lab) -> list[Figure]:
    """R5: recall@5 of hybrid retrieval on our own labelled set, against each part alone."""
    table = await measured()
    print(told(table), flush=True)
    both, words, meaning = (table[name]["all"] for name in ("both", "words", "meaning"))
    return [
        at_least("R5", "recall@5 by words and meaning", 0.9, [both], "share"),
        at_least("R5-words", "recall@5 by both over that by words alone", 1, ratios([both], [words])),
        at_least("R5-meaning", "recall@5 by both over that by meaning alone", 1, ratios([both], [meaning])),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _vector(text: str) -> list[float]:
    vector = [0.0] * DIMENSION
    for gram in _grams(text):
        drawn = crc32(gram.encode())
        vector[drawn % DIMENSION] += 1.0 if drawn & 1 << 20 else -1.0
    # Pieces that come often are mostly of common words.
    return [math.copysign(math.sqrt(abs(value)), value) for value in vector]


def _grams(text: str) -> Iterator[str]:
    for word in _WORD.findall(text.casefold()):
        for size in (4, 5):
            yield from (f" {word} "[start : start + size] for start in range(max(1, len(word) + 3 - size)))


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").split("\n") if line]
