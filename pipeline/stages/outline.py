"""The outline of a text: its headings, and between them paragraphs, lists, tables and code. Pure, and linear.

Markdown's headings (`#`, and lines underlined with === or ---) are known, and of plain text, with caution, lines on
their own that are numbered or in capitals: a heading that is missed costs little, one that is none cuts a text apart.
Source: CommonMark 0.31, sections 4.2, 4.3 and 4.5; GitHub's tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import zip_longest

from pipeline.stages.sentences import Span, trimmed


class Kind(Enum):
    """What a block is. Lists, tables and code are read line by line; only prose has sentences."""

    HEADING = "heading"
    PROSE = "prose"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text between empty lines; of a heading, how deep it is (1 is the highest) and what it says."""

    kind: Kind
    start: int
    end: int
    level: int = 0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks from one heading (or several with nothing between them) to the next; `above` are the headings over it."""

    above: tuple[str, ...]
    own: tuple[str, ...]
    blocks: tuple[Block, ...]


_LONGEST = 120  # characters of a heading; a longer line is a paragraph, however it begins
_CAPITALS, _NUMBERED = 7, 7  # below Markdown's six levels; a number adds one for each of its parts
_HASHES = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})\Z")
_FENCE = re.compile(r" {0,3}(`{3,16}|~{3,16})(?![`~])([^`\n]*)\Z")
_NUMBER = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,4})\.?[ \t]+(\S.*)")
_ITEM = re.compile(r"[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+\S")


def sections(text: str) -> Iterator[Section]:
    """Yield the sections of a text in order; what is before the first heading has none over it."""
    above: list[tuple[int, str]] = []
    heads: list[Block] = []
    body: list[Block] = []
    for block in blocks(text):
        if block.kind is not Kind.HEADING:
            body.append(block)
            continue
        if body:
            yield _section(above, heads, body)
            above, heads, body = _path(above, heads), [], []
        heads.append(block)
    if heads or body:
        yield _section(above, heads, body)


def _section(above: Sequence[tuple[int, str]], heads: Sequence[Block], body: Sequence[Block]) -> Section:
    highest = min((head.level for head in heads), default=0)
    over = [head for head in above if head[0] < highest]
    own = [title for _, title in _path(above, heads)]
    return Section(tuple(title for _, title in over), tuple(own), (*heads, *body))


def _path(above: Sequence[tuple[int, str]], heads: Sequence[Block]) -> list[tuple[int, str]]:
    """Say which headings hold after `heads`: each ends those of its level and below."""
    path = list(above)
    for head in heads:
        path = [*(one for one in path if one[0] < head.level), (head.level, head.title)]
    return path


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a text in order; nothing but white space is between them."""
    found = list(_joined(text, list(_plain(text))))
    for block, after in zip_longest(found, found[1:]):
        yield _as_heading(text, block, after)


# ------------------------------------------------------------------ lines


def _lines(text: str) -> list[Span]:
    ends = [found.start() for found in re.finditer("\n", text)]
    return list(zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True))


def _plain(text: str) -> Iterator[Block]:
    """Yield what lines alone tell: code between fences, Markdown's headings, and runs of other lines."""
    rows = _lines(text)
    fences = _fences(text, rows)
    run: list[Span] = []
    place = 0
    while place < len(rows):
        start, end = rows[place]
        close = fences.get(place)
        head = _HASHES.match(text, start, min(end, start + _LONGEST + 10)) if end - start <= _LONGEST + 10 else None
        if close is not None or head or not text[start:end].strip():
            yield from _run(text, run)
            run = []
        else:
            run.append((start, end))
        if close is not None:
            yield from _block(Kind.CODE, text, start, rows[close][1])
            place = close
        elif head:
            title = head[2].rstrip().rstrip("#").rstrip() or head[2].strip()
            yield from _block(Kind.HEADING, text, start, end, len(head[1]), title)
        place += 1
    yield from _run(text, run)


def _fences(text: str, rows: Sequence[Span]) -> dict[int, int]:
    """Pair the lines that open code with those that close it. One that is never closed opens nothing."""
    marks = {}
    for place, (start, end) in enumerate(rows):
        found = _FENCE.match(text, start, end)
        if found:
            marks[place] = (found[1][0], len(found[1]), not found[2].strip())
    pairs: dict[int, int] = {}
    # From which length on nothing that comes later closes a fence: a search that failed is not made again.
    hopeless = {"`": len(text), "~": len(text)}
    order = sorted(marks)
    inside = -1
    for nth, place in enumerate(order):
        mark, length, _ = marks[place]
        if place <= inside or length >= hopeless[mark]:
            continue
        later = map(order.__getitem__, range(nth + 1, len(order)))
        closers = (at for at in later if marks[at][0] == mark and marks[at][1] >= length and marks[at][2])
        close = next(closers, None)
        if close is None:
            hopeless[mark] = length
        else:
            pairs[place] = inside = close
    return pairs


def _run(text: str, rows: Sequence[Span]) -> Iterator[Block]:
    """Yield a run of lines: a heading that is underlined, a table, a list or prose."""
    if not rows:
        return
    start, end = rows[0][0], rows[-1][1]
    rest = rows
    if len(rows) > 1 and rows[0][1] - start <= _LONGEST and not _ITEM.match(text, start, rows[0][1]):
        under = _UNDERLINE.match(text, rows[1][0], rows[1][1])
        title = text[start : rows[0][1]].strip()
        if under and "|" not in title and any(map(str.isalnum, title)):
            level = 1 if under[1][0] == "=" else 2
            yield from _block(Kind.HEADING, text, start, rows[1][1], level, title)
            rest = rows[2:]
    if rest:
        yield from _block(_kind(text, rest), text, rest[0][0], end)


def _kind(text: str, rows: Sequence[Span]) -> Kind:
    barred = len(rows) > 1 and all("|" in text[start:end] for start, end in rows)
    if barred and (is_rule(text[slice(*rows[1])]) or all(text[slice(*row)].lstrip().startswith("|") for row in rows)):
        return Kind.TABLE
    return Kind.LIST if _ITEM.match(text, *rows[0]) else Kind.PROSE


def is_rule(line: str) -> bool:
    """Whether a line is what stands in a table between the names of the columns and the rows."""
    return "-" in line and set(line) <= set("|:- \t")


def _block(kind: Kind, text: str, start: int, end: int, level: int = 0, title: str = "") -> Iterator[Block]:
    for first, last in trimmed(text, start, end):
        yield Block(kind, first, last, level, title)


# ------------------------------------------------------------------ blocks


def _joined(text: str, found: Sequence[Block]) -> Iterator[Block]:
    """Make one list of those that only empty lines part, with what is indented below their items."""
    held: Block | None = None
    for block in found:
        belongs = block.kind is Kind.LIST or (block.kind is Kind.PROSE and _indented(text, block))
        if held and held.kind is Kind.LIST and belongs:
            held = replace(held, end=block.end)
            continue
        if held:
            yield held
        held = block
    if held:
        yield held


def _indented(text: str, block: Block) -> bool:
    return text[max(0, block.start - 2) : block.start] in {"  ", "\n\t", "\t\t"}


def _as_heading(text: str, block: Block, after: Block | None) -> Block:
    """Take a line that stands alone for a heading, where its looks and what follows say so."""
    # Something must stand below it; a line at the end of a text is a signature, not a heading.
    if after is None or block.kind not in {Kind.PROSE, Kind.LIST} or not _stands_alone(text, block):
        return block
    line = text[block.start : block.end]
    number = _NUMBER.match(line)
    if number and _is_title(number[2]) and _is_numbered(text, number[1], block, after):
        return replace(block, kind=Kind.HEADING, level=_NUMBERED + len(number[1].split(".")), title=line)
    if block.kind is Kind.PROSE and _in_capitals(line):
        return replace(block, kind=Kind.HEADING, level=_CAPITALS, title=line)
    return block


def _stands_alone(text: str, block: Block) -> bool:
    return block.end - block.start <= _LONGEST and text.find("\n", block.start, block.end) < 0


def _is_title(words: str) -> bool:
    return words[0].isupper() and len(words) <= _LONGEST * 2 // 3 and words[-1] not in ".!?:;,"


def _is_numbered(text: str, number: str, block: Block, after: Block) -> bool:
    """Tell "2.1 Scope" and "2. Scope" over a text from a line of a list."""
    if "." in number:
        return True
    longer = after.end - after.start > block.end - block.start
    return after.kind is Kind.PROSE and (longer or text.startswith(f"{number}.", after.start))


def _in_capitals(line: str) -> bool:
    letters = [letter for letter in line if letter.isalpha()]
    capitals = len(letters) >= 4 and all(map(str.isupper, letters))
    return capitals and len(letters) * 2 > len(line) and line[-1] not in ".!?:;,"
