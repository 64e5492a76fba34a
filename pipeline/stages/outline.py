"""The outline of a text: its headings, and between them paragraphs, lists, tables and code. Pure, and linear.

Markdown's headings (`#`, and lines underlined with === or ---) are known, and of plain text, with caution, lines on
their own that are numbered or in capitals: a heading that is missed costs little, one that is none cuts a text apart.
Source: CommonMark 0.31, sections 4.2, 4.3 and 4.5; GitHub's tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import zip_longest
from typing import NamedTuple

from pipeline.stages.sentences import trimmed


class Kind(Enum):
    """What a block is. Lists, tables and code are read line by line; only prose has sentences."""

    HEADING = "heading"
    PROSE = "prose"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


class Block(NamedTuple):
    """A part of a text between empty lines; of a heading, how deep it is (1 is the highest) and what it says."""

    kind: Kind
    start: int
    end: int
    level: int = 0
    title: str = ""


class Section(NamedTuple):
    """Blocks from one heading (or several with nothing between them) to the next; `above` are the headings over it."""

    above: tuple[str, ...]
    own: tuple[str, ...]
    blocks: tuple[Block, ...]


_LONGEST = 120  # characters of a heading; a longer line is a paragraph, however it begins
_CAPITALS, _NUMBERED = 7, 7  # below Markdown's six levels; a number adds one for each of its parts
_HASHES = r" {0,3}(#{1,6})[ \t]+(\S.*)"
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})\Z")
_FENCE = r" {0,3}(`{3,16}|~{3,16})(?![`~])([^`\n]*)"
# Of a text with a newline in front, so that lines are found by what they begin after: that is searched for quickly.
_FENCES = re.compile(rf"\n{_FENCE}$", re.MULTILINE)
# The lines that may end a run of others: one search for all of them, since there may be half a million lines.
_BREAK = re.compile(rf"\n(?:[^\S\n]*|{_HASHES}|{_FENCE})$", re.MULTILINE)
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


def _plain(text: str) -> Iterator[Block]:
    """Yield what lines alone tell: code between fences, Markdown's headings, and runs of other lines."""
    lines = f"\n{text}"
    fences = _fences(lines) if "```" in text or "~~~" in text else {}
    since = 0
    for found in _BREAK.finditer(lines):
        start, end = found.start(), found.end() - 1
        hashes, said, fence = found.group(1, 2, 3)
        close = fences.get(start) if fence else None
        if start < since or (fence and close is None) or (hashes and end - start > _LONGEST + 10):
            continue
        yield from _run(text, since, start - 1)
        if close is not None:
            yield from _block(Kind.CODE, text, start, close)
            end = close
        elif hashes:
            title = said.rstrip().rstrip("#").rstrip() or said.strip()
            yield from _block(Kind.HEADING, text, start, end, len(hashes), title)
        since = end + 1
    yield from _run(text, since, len(text))


def _fences(lines: str) -> dict[int, int]:
    """Pair the starts of lines that open code with the ends of those that close it.

    One that is never closed opens nothing.
    """
    found = _FENCES.finditer(lines)
    marks = [(one.start(), one.end() - 1, one[1][0], len(one[1]), not one[2].strip()) for one in found]
    pairs: dict[int, int] = {}
    # From which length on nothing that comes later closes a fence: a search that failed is not made again.
    hopeless = {"`": len(lines), "~": len(lines)}
    inside = -1
    for nth, (start, _, mark, length, _) in enumerate(marks):
        if start < inside or length >= hopeless[mark]:
            continue
        later = map(marks.__getitem__, range(nth + 1, len(marks)))
        close = next((end for _, end, other, long, bare in later if other == mark and long >= length and bare), None)
        if close is None:
            hopeless[mark] = length
        else:
            pairs[start] = inside = close
    return pairs


def _run(text: str, start: int, end: int) -> Iterator[Block]:
    """Yield a run of lines, if there are any: a heading that is underlined, a table, a list or prose."""
    if start >= end:
        return
    first = text.find("\n", start, end)
    if 0 <= first <= start + _LONGEST and not _ITEM.match(text, start, first):
        second = text.find("\n", first + 1, end)
        below = end if second < 0 else second
        under = _UNDERLINE.match(text, first + 1, below)
        title = text[start:first].strip() if under else ""
        if under and "|" not in title and any(map(str.isalnum, title)):
            level = 1 if under[1][0] == "=" else 2
            yield from _block(Kind.HEADING, text, start, below, level, title)
            start = below + 1
    if start < end:
        yield from _block(_kind(text, start, end), text, start, end)


def _kind(text: str, start: int, end: int) -> Kind:
    first = text.find("\n", start, end)
    if first >= 0 and text.find("|", start, first) >= 0:
        rows = text[start:end].split("\n")
        barred = all("|" in row for row in rows)
        if barred and (is_rule(rows[1]) or all(row.lstrip().startswith("|") for row in rows)):
            return Kind.TABLE
    return Kind.LIST if _ITEM.match(text, start, end if first < 0 else first) else Kind.PROSE


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
        if held and held.kind is Kind.LIST and _belongs(text, block):
            held = Block(Kind.LIST, held.start, block.end)
            continue
        if held:
            yield held
        held = block
    if held:
        yield held


def _belongs(text: str, block: Block) -> bool:
    """Whether a block goes on with the list before it: items, or what is indented."""
    if block.kind is Kind.LIST:
        return True
    return block.kind is Kind.PROSE and text[max(0, block.start - 2) : block.start] in {"  ", "\n\t", "\t\t"}


def _as_heading(text: str, block: Block, after: Block | None) -> Block:
    """Take a line that stands alone for a heading, where its looks and what follows say so."""
    # Something must stand below it; a line at the end of a text is a signature, not a heading.
    if after is None or not (block.kind is Kind.PROSE or block.kind is Kind.LIST) or not _stands_alone(text, block):
        return block
    line = text[block.start : block.end]
    number = _NUMBER.match(line)
    if number and _is_title(number[2]) and _is_numbered(text, number[1], block, after):
        return block._replace(kind=Kind.HEADING, level=_NUMBERED + len(number[1].split(".")), title=line)
    if block.kind is Kind.PROSE and _in_capitals(line):
        return block._replace(kind=Kind.HEADING, level=_CAPITALS, title=line)
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
