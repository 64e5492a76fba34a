"""Chunking: a document's body becomes pieces that can be found and read by themselves.

Each section is cut for itself, at places that the text chooses: of the ends of paragraphs (else of sentences, lines,
words) that are near enough, the one whose hash is the smallest. So the same body always gives the same chunks, and a
change moves the cuts around it and no others (content-defined chunking; LBFS, SOSP 2001, section 3.1): what it did not
touch is neither written nor embedded again.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple

from pipeline.core.index_ports import Chunk
from pipeline.core.limits import CHARACTERS_PER_TOKEN, estimate_tokens
from pipeline.core.passages import spaced
from pipeline.stages.outline import Block, Kind, Section, is_rule, sections
from pipeline.stages.sentences import Span, lines, sentences, words

MAX_TOKENS = 400
"""The most tokens of a chunk, with all that it repeats."""
OWN_TOKENS = 300
"""The most (estimated) tokens of a chunk that no other has."""
LEAST_TOKENS = 100
"""A chunk that is cut off has at least this many tokens of its own: large enough to be about something."""
PATH_TOKENS, OVERLAP_TOKENS = 48, 48
"""The most tokens of the headings in front of a chunk, and of the sentences that it repeats of the one before."""

_OWN = OWN_TOKENS * CHARACTERS_PER_TOKEN
_UNIT_TOKENS = 240
"""The most tokens of what is kept together where it fits: a sentence, a table, a list, a block of code."""
_TITLE = 80  # characters of a heading in the path
_BLANKS = re.compile(r"\n{3,}")
_WORDS, _LINES, _SENTENCE, _PARAGRAPH = range(4)


class _Unit(NamedTuple):
    """What is never cut: where it is in the text, how good a cut after it is, and whether it is a sentence of prose.

    `head` is where the first lines of its table are, without which it says little.
    """

    start: int
    end: int
    rank: int
    prose: bool
    head: Span | None = None


class _Text(NamedTuple):
    """A section's units; `starts` and `ends` are their places in thirds of tokens, which add up where tokens do not.

    `ranks` are theirs, and `drawn` the lots that were drawn before, by the text on both sides.
    """

    text: str
    units: Sequence[_Unit]
    starts: Sequence[int]
    ends: Sequence[int]
    ranks: Sequence[int]
    drawn: dict[tuple[str, str], bytes]


def chunk(body: str) -> tuple[Chunk, ...]:
    """Cut `body` into chunks of at most `MAX_TOKENS`, numbered from 0, in order; nothing but white space is lost.

    A chunk is of one section. In front stands the path of headings over it, then the last sentences of the chunk
    before if that is of the same section, or the head of the table that goes on; all this is its `overlap`.
    """
    text = _BLANKS.sub("\n\n", "\n".join(map(str.rstrip, body.split("\n")))).strip()
    parts = (part for section in sections(text) for part in _chunks(text, section))
    return spaced(text, (Chunk(number, told, overlap) for number, (told, overlap) in enumerate(parts)))


def _chunks(text: str, section: Section) -> Iterator[tuple[str, int]]:
    above = _path(section.above)
    prefix = f"{above}\n\n" if above else ""
    start, end = section.blocks[0].start, section.blocks[-1].end
    if end - start <= _OWN and _weight(text[start:end]) <= _OWN:
        yield prefix + text[start:end], len(above)
        return
    whole = _measured(text, list(_units(text, section.blocks)))
    own = _path(section.own)
    first = 0
    while first < len(whole.units):
        last = _cut(whole, first)
        told = text[whole.units[first].start : whole.units[last].end]
        if first:
            yield _after(whole, first, own, told)
        else:
            yield prefix + told, len(above)
        first = last + 1


def _after(whole: _Text, first: int, path: str, told: str) -> tuple[str, int]:
    """Put in front of a chunk what it repeats, so that the rest goes on exactly where the chunk before ends."""
    ended = whole.units[first - 1].end
    gap = whole.text[ended : whole.units[first].start]
    head = whole.units[first].head
    said = whole.text[head[0] : head[1]] if head else whole.text[_repeated(whole, first) : ended]
    if said:
        prefix = f"{path}\n\n{said}" if path else said
    elif path:
        prefix = path if "\n" in gap else f"{path}\n"
    else:
        return told, 0
    return prefix + gap + told, len(prefix)


def _repeated(whole: _Text, first: int) -> int:
    """Say from where on a chunk repeats the one before: whole sentences of prose, as many as are allowed."""
    place = first
    while place and whole.units[place - 1].prose:
        if whole.ends[first - 1] - whole.starts[place - 1] > OVERLAP_TOKENS * CHARACTERS_PER_TOKEN:
            break
        place -= 1
    return whole.units[place].start if place < first else whole.units[first - 1].end


def _path(titles: Sequence[str]) -> str:
    """Write headings in one line, without the highest of them where they are too many."""
    cut = [title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}\u2026" for title in titles]
    paths = (" > ".join(cut[start:]) for start in range(len(cut)))
    return next((path for path in paths if estimate_tokens(path) <= PATH_TOKENS), "")


# ------------------------------------------------------------------ cuts


def _cut(whole: _Text, first: int) -> int:
    """Choose the last unit of the chunk that begins with unit `first`."""
    begin = whole.starts[first]
    rest = whole.ends[-1] - begin
    if rest <= _OWN:
        return len(whole.units) - 1
    # Nothing tiny is left over at the end of a section.
    most = min(OWN_TOKENS, rest // CHARACTERS_PER_TOKEN - LEAST_TOKENS // 2) * CHARACTERS_PER_TOKEN
    enough = bisect_left(whole.ends, begin + LEAST_TOKENS * CHARACTERS_PER_TOKEN, first)
    after = bisect_right(whole.ends, begin + most, first)
    if enough >= after:
        return max(first, after - 1)
    ranks = whole.ranks[enough:after]
    highest = max(ranks)
    return min((last for last, rank in enumerate(ranks, enough) if rank == highest), key=lambda last: _lot(whole, last))


def _lot(whole: _Text, last: int) -> bytes:
    """Draw a lot for a cut from the text on its two sides alone."""
    before, after = whole.units[last], whole.units[last + 1]
    sides = whole.text[before.start : before.end], whole.text[after.start : after.end]
    lot = whole.drawn.get(sides)
    if lot is None:
        lot = blake2b("\n".join(sides).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        whole.drawn[sides] = lot
    return lot


# ------------------------------------------------------------------ units


def _units(text: str, found: Sequence[Block]) -> Iterator[_Unit]:
    for block in found:
        parts = _parts(text, block)
        yield from parts[:-1]
        # A heading stays with what it is over, and "as follows:" with what follows.
        leads = block.kind is Kind.HEADING or text[block.end - 1] == ":"
        start, end, _, prose, head = parts[-1]
        yield _Unit(start, end, _WORDS if leads else _PARAGRAPH, prose, head)


def _parts(text: str, block: Block) -> list[_Unit]:
    parts: list[_Unit] = []
    if block.kind is Kind.PROSE:
        for sentence in sentences(text, block.start, block.end):
            parts += _fitted(text, sentence, _SENTENCE, prose=True)
        return parts
    parts += _fitted(text, (block.start, block.end), _LINES, prose=False)
    head = _head(text, block) if block.kind is Kind.TABLE else None
    return [one._replace(head=head) if one.start > head[1] else one for one in parts] if head else parts


def _head(text: str, block: Block) -> Span | None:
    """Find the names of a table's columns, and the rule below them: its first two lines, if they are short enough."""
    first = text.find("\n", block.start, block.end)
    end = text.find("\n", first + 1, block.end)
    short = 0 <= end <= block.start + OVERLAP_TOKENS * CHARACTERS_PER_TOKEN
    head = text[block.start : end]
    ruled = short and is_rule(text[first + 1 : end])
    return (block.start, end) if ruled and estimate_tokens(head) <= OVERLAP_TOKENS else None


def _fitted(text: str, span: Span, rank: int, *, prose: bool) -> Sequence[_Unit]:
    """Return a part whole where it fits, else its lines, else their words; a cut in it is worse than one after it."""
    if _fits(text, span):
        return (_Unit(*span, rank, prose),)
    parts: list[_Unit] = []
    for line in lines(text, *span):
        if _fits(text, line):
            parts.append(_Unit(*line, _LINES, False))
        else:
            # A character costs at most one token, so this many always fit.
            parts += [_Unit(first, last, _WORDS, False) for first, last in words(text, *line, _UNIT_TOKENS)]
    return parts


def _fits(text: str, span: Span) -> bool:
    start, end = span
    # A character is a token at most.
    return end - start <= _UNIT_TOKENS or estimate_tokens(text[start:end]) <= _UNIT_TOKENS


def _measured(text: str, units: Sequence[_Unit]) -> _Text:
    starts, ends = [unit.start for unit in units], [unit.end for unit in units]
    ranks, begin = [unit.rank for unit in units], starts[0]
    told = text[begin : ends[-1]]
    if not told.isascii():
        weights = (1 if character < "\x80" else CHARACTERS_PER_TOKEN for character in told)
        places = list(accumulate(weights, initial=0))
        starts, ends = [places[start - begin] for start in starts], [places[end - begin] for end in ends]
    return _Text(text, units, starts, ends, ranks, {})


def _weight(text: str) -> int:
    """Weigh a text in thirds of (estimated) tokens."""
    plain = len(text) if text.isascii() else sum(map(str.isascii, text))
    return plain + (len(text) - plain) * CHARACTERS_PER_TOKEN
