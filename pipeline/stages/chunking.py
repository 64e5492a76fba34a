"""Chunking: a document's body becomes pieces that fit into a prompt, cut where the text itself pauses.

Deterministic and without state: the same body always gives the same chunks, so indexing twice changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.core.limits import estimate_tokens
from pipeline.core.ports import Chunk

TARGET_TOKENS = 200
"""A chunk is closed once it has this many (estimated) tokens: small enough to be about one thing."""
MAX_TOKENS = 300
"""The most tokens of a chunk."""

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])|\n")
_WORD = re.compile(r"\s+")


class _Piece(NamedTuple):
    """A text and what joins it to the piece before it."""

    text: str
    joint: str


def chunk(body: str) -> tuple[Chunk, ...]:
    """Cut `body` into chunks of at most `MAX_TOKENS`, numbered from 0, in order; nothing but white space is lost.

    Cuts fall between paragraphs where they can, else between sentences, words, and only then within a word.
    """
    return tuple(Chunk(number, text) for number, text in enumerate(_pack(_pieces(body))))


def _pieces(body: str) -> Iterator[_Piece]:
    for paragraph in _split(_PARAGRAPH, body):
        joint = "\n\n"
        for part in _fit(paragraph):
            yield _Piece(part, joint)
            joint = " "


def _fit(paragraph: str) -> Iterator[str]:
    """Yield a paragraph whole where it fits, else its sentences, else their words, else pieces of words."""
    if _fits(paragraph):
        yield paragraph
        return
    for sentence in _split(_SENTENCE, paragraph):
        if _fits(sentence):
            yield sentence
        else:
            yield from _words(sentence)


def _words(sentence: str) -> Iterator[str]:
    for word in _split(_WORD, sentence):
        # A character costs at most one token, so this many always fit.
        yield from (word[start : start + MAX_TOKENS] for start in range(0, len(word), MAX_TOKENS))


def _pack(pieces: Iterable[_Piece]) -> Iterator[str]:
    text = ""
    for piece in pieces:
        longer = f"{text}{piece.joint}{piece.text}" if text else piece.text
        if text and (not _fits(longer) or estimate_tokens(text) >= TARGET_TOKENS):
            yield text
            longer = piece.text
        text = longer
    if text:
        yield text


def _split(where: re.Pattern[str], text: str) -> Iterator[str]:
    return (part.strip() for part in where.split(text) if part.strip())


def _fits(text: str) -> bool:
    return estimate_tokens(text) <= MAX_TOKENS
