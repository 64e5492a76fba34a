"""The vectors that an embeddings endpoint answers with, read with distrust. Pure.

Each is told by its `index`, as servers need not keep an order; it is a list of numbers, or base64 of little-endian
32-bit floats, whichever was asked for. What is wrong is said without a word of the texts. Source: the OpenAI API
reference, "Embeddings".
"""

from __future__ import annotations

import json
import math
from binascii import a2b_base64
from collections.abc import Sequence
from struct import unpack
from typing import Any, NamedTuple

MOST_BYTES = 64 * 1024 * 1024
"""A longer answer is not read: 2,048 texts in 3,072 dimensions take 34 MB as base64."""
_LARGEST = 3.4e38  # a 32-bit float, as which the index keeps numbers


class BadAnswer(Exception):
    """The answer is not what was asked for; its text is for people."""


class Vectors(NamedTuple):
    """The vectors in the order of the texts, and the tokens that the provider counted, where it did."""

    vectors: Sequence[Sequence[float]]
    tokens: int | None


def read_vectors(body: bytes, texts: int) -> Vectors:
    """Read the answer to a request of `texts` texts. Raises BadAnswer."""
    if len(body) > MOST_BYTES:
        raise BadAnswer(f"it has {len(body)} bytes; {MOST_BYTES} are read")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise BadAnswer("it is not JSON") from None
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        raise BadAnswer("it has no list of vectors under data")
    if len(data) != texts:
        raise BadAnswer(f"it has {len(data)} vectors for {texts} texts")
    vectors = [_vector(item, place) for place, item in enumerate(_ordered(data))]
    if len(lengths := {len(vector) for vector in vectors}) > 1:
        raise BadAnswer(f"its vectors differ in length, from {min(lengths)} to {max(lengths)}")
    return Vectors(vectors, _tokens(answer.get("usage")))


def _ordered(data: Sequence[Any]) -> list[Any]:
    """Bring the items into the order of the texts. Without any index they are taken to be in it."""
    places = [item.get("index") if isinstance(item, dict) else None for item in data]
    if all(place is None for place in places):
        return list(data)
    if any(type(place) is not int for place in places) or set(places) != set(range(len(data))):
        raise BadAnswer("the indexes of its vectors are not 0, 1, 2 and so on, each once")
    by_place = dict(zip(places, data, strict=True))
    return [by_place[place] for place in range(len(data))]


def _vector(item: Any, place: int) -> Sequence[float]:
    told = item.get("embedding") if isinstance(item, dict) else None
    numbers = _decoded(told, place) if isinstance(told, str) else _listed(told, place)
    if not numbers:
        raise BadAnswer(f"vector {place} is empty")
    try:
        # One call in C: NaN, infinities and what a 32-bit float cannot hold all show in the length.
        length = math.hypot(*numbers)
    except OverflowError:
        length = math.inf
    if not length <= _LARGEST:
        raise BadAnswer(f"vector {place} holds a number that is not finite")
    if length == 0:
        raise BadAnswer(f"vector {place} has no direction: all its numbers are 0")
    return numbers


def _listed(told: Any, place: int) -> Sequence[float]:
    # bool is an int to isinstance, so the types themselves are looked at.
    if not isinstance(told, list) or not set(map(type, told)) <= {float, int}:
        raise BadAnswer(f"vector {place} is no list of numbers")
    return told


def _decoded(text: str, place: int) -> tuple[float, ...]:
    try:
        raw = a2b_base64(text, strict_mode=True)
    except ValueError:
        raise BadAnswer(f"vector {place} is text that is not base64") from None
    if len(raw) % 4:
        raise BadAnswer(f"vector {place} has {len(raw)} bytes, which are no 32-bit floats")
    return unpack(f"<{len(raw) // 4}f", raw)


def _tokens(usage: Any) -> int | None:
    for name in ("prompt_tokens", "total_tokens"):
        value = usage.get(name) if isinstance(usage, dict) else None
        if type(value) is int and 0 < value < 2**31:
            return value
    return None
