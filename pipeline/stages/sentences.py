"""Sentences: where a text may be cut so that both sides still read well. Pure, and linear in the text's length.

Rather too few ends than too many: two sentences taken for one cost nothing, half a sentence misleads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]
"""Where a part of a text begins and ends; it neither begins nor ends with white space."""

_CLOSERS = "\"'\u201d\u2019\u00bb\u203a)\\]*_"
_END = re.compile(
    # Possessive, and from the first of several stops only: a line of a million dots is read once.
    rf"(?<![.!?\u2026])[.!?\u2026]++[{_CLOSERS}]*+(?=\s)"
    # Chinese and Japanese set no space after a sentence.
    "|[\u3002\uff01\uff1f\uff61][\u3002\uff01\uff1f\uff61]*[\u300d\u300f\u201d\u2019\uff09\u300b\u3011]*"
)
_BEFORE_WORD = re.compile(r".*[\s(\[\"'\u201c\u2018\u00ab]", re.DOTALL)
_LONGEST = 24  # characters of an abbreviation that are looked at
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"\S+")
_LINE = re.compile(r"\S(?:[^\n]*\S)?")

# After these a sentence goes on, whatever follows; in small letters, without the last stop.
_ABBREVIATIONS = frozenset(
    "abb abs al allg anm apr approx art aug ave bd bde betr bldg bspw bzgl bzw ca cap capt cf ch chap co col corp dec"
    " dept dez dipl doc dr ed eds eq ev evtl fa feb ff fig figs fr gem gen ggf gmbh gov hon hr hrsg inc ing incl inkl"
    " jan jr jul jun kap lt ltd max mag maj min mio mme mr mrd mrs ms mt no nos nov nr num oct okt op p par ph pp prof"
    " pt ref resp rev sec sen sep sept sgt sog sr st str tab tel tsd univ usf vgl vol vols vs zzgl zzt ziff".split()
)


def sentences(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the sentences of `text[start:end]` in order; white space between them belongs to none."""
    for found in _END.finditer(text, start, end):
        # At the very end there is nothing that could go on.
        if found.end() < end and not _goes_on(text, found.start(), found.end()):
            yield from trimmed(text, start, found.end())
            start = found.end()
    yield from trimmed(text, start, end)


def lines(text: str, start: int, end: int) -> Iterator[Span]:
    """Return the lines of `text[start:end]` that are not blank."""
    return map(re.Match.span, _LINE.finditer(text, start, end))


def words(text: str, start: int, end: int, longest: int) -> Iterator[Span]:
    """Yield the words of `text[start:end]`, those of more than `longest` characters in pieces."""
    for found in _WORD.finditer(text, start, end):
        for first in range(found.start(), found.end(), longest):
            yield first, min(first + longest, found.end())


def trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield `text[start:end]` without white space around it, if there is anything else."""
    if start < end and not text[start].isspace() and not text[end - 1].isspace():
        yield start, end
        return
    inner = text[start:end]
    bare = inner.strip()
    if bare:
        first = start + len(inner) - len(inner.lstrip())
        yield first, first + len(bare)


def _goes_on(text: str, stop: int, end: int) -> bool:
    """Whether the sentence goes on after what looks like its end, at `text[stop:end]`."""
    mark = text[stop]
    if mark not in ".!?\u2026":
        return False
    space = _SPACE.match(text, end)
    following = text[space.end() : space.end() + 1] if space else ""
    if following.islower():
        return True
    return mark == "." and text[stop + 1 : stop + 2] not in {".", "!", "?"} and _is_short(text, stop)


def _is_short(text: str, stop: int) -> bool:
    """Whether the word before a full stop is an abbreviation, an initial or a small number such as that of a day."""
    near = text[max(0, stop - _LONGEST) : stop]
    before = _BEFORE_WORD.match(near)
    word = (near[before.end() :] if before else near).casefold()
    parts = word.split(".")
    if word.isdigit():
        return len(word) <= 2
    return word in _ABBREVIATIONS or all(len(part) == 1 and part.isalpha() for part in parts)
