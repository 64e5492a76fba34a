"""How the simulator answers: it quotes the sentences of the passages that share most words with the question.

Extractive and deterministic on purpose: a right retrieval gives a right answer, a wrong one a wrong answer, so that the
answers of a run measure the pipeline and not a model. Pure: no clock, no randomness, no I/O.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.devkit.simulator_prompt import Passage, Prompt

UNKNOWN = "I do not know."
CHARACTERS_PER_TOKEN = 4

# A sentence joins the best one only when it is nearly as good: a wrong second sentence is worse than none.
_NEARLY = 0.7
# The words of the whole passage count too, so that "They stay for 3 days" is found under a passage about parcels.
_PASSAGE_WEIGHT = 0.35
# Below this share of the question's words, what was found is about something else.
_LEAST_COVERAGE = 0.2

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])|\n+")
_ENDINGS = tuple("ations ation ings ing ies ied ments ment ers er ed es ly s e y".split())
_STOP_WORDS = frozenset(
    "a about after all also am an and any are as at be been before being but by can could did do does doing for from"
    " had has have having he her his how i if in into is it its just let many may me might more most much must my no"
    " not of off on once one only or other our out over own please same she should so some such than that the their"
    " them then there these they this those through to too under until up us was we were what when where which while"
    " who whom whose why will with would you your".split()
)


@dataclass(frozen=True, slots=True)
class Quote:
    """One sentence of a passage and the number of that passage."""

    sentence: str
    number: int


def tokens(text: str) -> int:
    """Estimate the tokens of a text: four characters each, rounded up."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def truncate(text: str, limit: int | None) -> tuple[str, bool]:
    """Cut a text to `limit` tokens; the second value says whether anything was cut."""
    if limit is None or tokens(text) <= limit:
        return text, False
    return text[: limit * CHARACTERS_PER_TOKEN], True


def quotes(prompt: Prompt, most: int = 3) -> tuple[Quote, ...]:
    """Choose up to `most` sentences that answer the question, best first; none when nothing matches."""
    asked = _words(prompt.question)
    candidates = [(passage, sentence) for passage in prompt.passages for sentence in _split(passage.text)]
    weights = _weights(asked, [_words(sentence) for _, sentence in candidates])
    scored = [
        (_score(asked, passage, sentence, weights), place) for place, (passage, sentence) in enumerate(candidates)
    ]
    best = max((score for score, _ in scored), default=0.0)
    if best <= 0:
        return ()
    ranked = sorted(((score, place) for score, place in scored if score >= best * _NEARLY), key=lambda s: (-s[0], s[1]))
    chosen = (candidates[place] for _, place in ranked[:most])
    return tuple(Quote(sentence, passage.number) for passage, sentence in chosen)


def as_text(found: Sequence[Quote]) -> str:
    """Write an answer in prose: each sentence followed by its citation `[n]`."""
    return " ".join(f"{quote.sentence} [{quote.number}]" for quote in found) or UNKNOWN


def as_json(found: Sequence[Quote]) -> str:
    """Write an answer as the JSON object `{"answer": str, "citations": [int, ...]}`."""
    answer = " ".join(quote.sentence for quote in found) or UNKNOWN
    return json.dumps({"answer": answer, "citations": sorted({quote.number for quote in found})}, ensure_ascii=False)


def write_answer(prompt: Prompt, *, limit: int | None, as_object: bool, most: int = 3) -> tuple[str, bool]:
    """Answer a prompt within `limit` tokens by up to `most` sentences: (answer, whether it had to be cut).

    Sentences that do not fit are left out; only when the best alone is too long is the text itself cut.
    """
    write = as_json if as_object else as_text
    found = quotes(prompt, most)
    while len(found) > 1 and truncate(write(found), limit)[1]:
        found = found[:-1]
    return truncate(write(found), limit)


def sentences(text: str) -> list[str]:
    """Split prose into sentences, without blank ones."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def terms(text: str) -> list[str]:
    """Split a text into comparable words: lower case, no stop words, endings cut off."""
    return [stem(word) for word in _WORD.findall(text.casefold()) if word not in _STOP_WORDS]


def stem(word: str) -> str:
    """Cut one common English ending off, so that "returned", "returning" and "returns" are one word."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


# The same passages are retrieved again and again, and taking them apart is most of the work of an answer.
@lru_cache(maxsize=10_000)
def _words(text: str) -> frozenset[str]:
    return frozenset(terms(text))


@lru_cache(maxsize=2_000)
def _split(text: str) -> tuple[str, ...]:
    return tuple(sentences(text))


def _weights(asked: frozenset[str], texts: Sequence[frozenset[str]]) -> dict[str, float]:
    """Weigh the asked words by how few sentences have them (inverse document frequency)."""
    seen = Counter(term for text in texts for term in text & asked)
    return {term: math.log(1 + len(texts) / (1 + seen[term])) for term in asked}


def _score(asked: frozenset[str], passage: Passage, sentence: str, weights: dict[str, float]) -> float:
    here = asked & _words(sentence)
    around = asked & (_words(passage.document) | _words(passage.text))
    if not here or len(around) < _LEAST_COVERAGE * len(asked):
        return 0.0
    return _total(here, weights) + _PASSAGE_WEIGHT * _total(around, weights)


def _total(words: Iterable[str], weights: dict[str, float]) -> float:
    # Sorted, as the order of a set differs between processes and the last digit of a sum of floats with it.
    return sum(weights[word] for word in sorted(words))
