"""Vectors of texts without a model: hashed words and parts of words, so that texts about the same lie near each other.

Deterministic in every process, and offline. Words weigh most; their three-letter parts bring forms and misspellings of
a word together, a small list of synonyms what no letters have in common. Pure. Source of the method: feature hashing
(Weinberger et al., ICML 2009) over character n-grams, as fastText has them.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from struct import pack, unpack

from pipeline.devkit.simulator_answer import stem, terms

DIMENSIONS = 256

_PART_WEIGHT = 0.5
_STOP_WORD = 0.1  # a text of nothing else still has a direction
_WORD = re.compile(r"\w+")
_SYNONYMS = (
    "begin start commence launch open",
    "end finish stop close conclude",
    "buy purchase acquire order",
    "price cost fee charge rate tariff",
    "fix repair mend maintain service",
    "error fault failure defect problem trouble broken",
    "car vehicle automobile",
    "house home building apartment flat",
    "big large huge",
    "small little tiny",
    "fast quick rapid speedy",
    "send ship dispatch deliver",
    "get receive obtain collect fetch",
    "parcel package packet box",
    "return refund reimburse money",
    "delete remove erase",
    "change edit modify update alter",
    "customer client buyer resident",
    "worker employee staff colleague technician",
    "holiday vacation leave",
    "phone telephone mobile call",
    "password passcode code pin",
    "contract agreement plan",
    "bill invoice statement",
    "doctor physician medic",
    "help support assist aid",
    "guarantee warranty",
)


def vector(text: str, dimensions: int = DIMENSIONS) -> tuple[float, ...]:
    """Turn a text into a vector of length 1 whose numbers are exact as 32-bit floats, too."""
    sums: dict[int, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for word in terms(text):
        counts[word] += 1
    for word, times in counts.items():
        for place, weight in _features(word):
            sums[place % dimensions] += weight * (1 + math.log(times))
    for place, weight in _rest(text):
        sums[place % dimensions] += weight
    length = math.hypot(*sums.values()) or 1.0
    plain = [sums.get(place, 0.0) / length for place in range(dimensions)]
    return unpack(f"<{dimensions}f", pack(f"<{dimensions}f", *plain))


def similarity(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the cosine of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def _rest(text: str) -> Iterator[tuple[int, float]]:
    """Yield what keeps texts apart that share all their words: a little of the first letters, stop words included."""
    yield _hashed(" ".join(_WORD.findall(text.casefold()))[:200] or text[:200], _STOP_WORD)


# The same words come again and again, and hashing them is most of the work.
@lru_cache(maxsize=50_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    meaning = _MEANINGS.get(word, word)
    padded = f"<{word}>"
    parts = {padded[start : start + 3] for start in range(len(padded) - 2)}
    share = _PART_WEIGHT / math.sqrt(len(parts) or 1)
    # Sorted, as the order of a set differs between processes and the last digit of a sum of floats with it.
    return (_hashed(f"word {meaning}", 1.0), *(_hashed(f"part {part}", share) for part in sorted(parts)))


def _hashed(feature: str, weight: float) -> tuple[int, float]:
    digest = blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    return number >> 1, weight if number & 1 else -weight


_MEANINGS = {stem(word): group.split()[0] for group in _SYNONYMS for word in group.split()}
