"""The offset map: what is settled beyond the commit frontier, spelt in ASCII for the metadata of a commit.

Kafka keeps up to 4,095 characters beside each committed offset. A broker or another client may hand back anything
there, so what does not read as ours, whole, is refused (`Unreadable`) and never guessed at: a wrong map loses records.
What reads is believed: of a log whose end was cut off and written anew (an unclean election) it would name other
records than it meant, as the committed offset itself does.

Text: `lep1:`, one letter for the packing (`r` raw, `z` deflate), and base 85 (RFC 1924) of a CRC-32 and the body. The
body is unsigned LEB128 numbers: settled offsets, handed-over offsets, until when those are waited for, where the
answers are followed from, and who was handed over from. A set of offsets is spelt as run lengths or as a bitset,
whichever is shorter.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

MAX_CHARACTERS = 4_095
"""What a broker keeps of a commit's metadata, as measured on Kafka 4.3.1 (KIP-211 leaves the limit to the broker)."""
ROOM = 2_900
"""Bytes of a body that surely fit: base 85 makes five characters of four bytes, and the rest is for what goes along."""

_NAME, _VERSION = "lep", "1"
_SPARE = 32  # characters that a broker's adapter may add of its own
_RUNS, _BITS = 0, 1
_MOST_BYTES = 65_536  # an honest map is far smaller; a packed bomb is not
_MOST_NUMBER = 1 << 63
_MOST_BITS = 1 << 15
_MOST_SPAN = 1 << 32
"""How far an honest map reaches beyond its frontier at the very most: 100,000 records a second for half a day."""
_RUN_BYTES = 6  # at most, of one hole and one run: 3 bytes each hold 2 million
_OWNER_BYTES = 2  # at most, of whose call a handed-over one is; the owners themselves are few


class Unreadable(Exception):
    """Metadata that is not ours, of a newer version, or damaged. The text says which."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a commit says beyond its offset.

    `settled`: ascending, disjoint ranges beyond the frontier. `handed`: offsets of calls that their former owner still
    finishes, at the latest at `until` (whole seconds since the epoch), and `owners`, by such an offset, the `mark` of
    that owner's name where it is known. `followed`: by `mark(topic)`, the offset from which on that topic may hold
    answers to what is not settled.
    """

    settled: tuple[range, ...] = ()
    handed: tuple[int, ...] = ()
    until: int = 0
    followed: Mapping[int, int] = field(default_factory=dict)
    owners: Mapping[int, int] = field(default_factory=dict)


NOTHING = Progress()


def mark(name: str) -> int:
    """Return a short name for a followed topic, which survives another order or number of topics, or for an owner."""
    return zlib.crc32(name.encode())


def could_overflow(span: int, owed: int, running: int = 0) -> bool:
    """Whether settling some of `owed` records within `span` offsets could make a map too long.

    `running` is how many calls might have to be handed over besides.
    """
    bits = span // 8 + 2
    return min(bits, _RUN_BYTES * owed) + min(bits, _RUN_BYTES * running) + _OWNER_BYTES * running > ROOM


def spell(frontier: int, progress: Progress) -> str:
    """Spell what goes with a commit of `frontier`; empty where there is nothing to say.

    Never longer than `MAX_CHARACTERS`: where it would be, the last settled ranges are left out, so they are repeated.
    """
    settled = progress.settled
    if not settled and not progress.handed and not progress.followed:
        return ""
    while (text := _packed(_body(frontier, progress, settled))) is None and settled:
        settled = settled[: len(settled) * 3 // 4]
    return text or ""


def read(frontier: int, metadata: str | None) -> Progress:
    """Read what was spelt for `frontier`; nothing from empty metadata. Raises Unreadable for all else."""
    if not metadata:
        return NOTHING
    name, colon, text = metadata.partition(":")
    if not colon or not name.startswith(_NAME) or not name[len(_NAME) :].isdecimal():
        raise Unreadable("it is another application's")
    if name[len(_NAME) :] != _VERSION:
        raise Unreadable(f"it is of version {name[len(_NAME) :][:10]}, and only {_VERSION} is known here")
    if len(metadata) > MAX_CHARACTERS:
        raise Unreadable(f"it is longer than {MAX_CHARACTERS} characters")
    body = _unpacked(text)
    try:
        return _read_body(frontier, _Numbers(body))
    except (IndexError, ValueError, OverflowError) as error:
        raise Unreadable(f"its body does not read: {error}") from None


# ------------------------------------------------------------------ the text


def _body(frontier: int, progress: Progress, settled: Sequence[range]) -> bytes:
    handed = [range(offset, offset + 1) for offset in sorted(progress.handed)]
    return b"".join(
        (
            _set(frontier, settled),
            _set(frontier, handed),
            _number(progress.until),
            _number(len(progress.followed)),
            *(struct.pack(">I", topic) + _number(offset) for topic, offset in sorted(progress.followed.items())),
            _owners(progress),
        )
    )


def _owners(progress: Progress) -> bytes:
    """Spell whose the handed-over calls are: the known owners, and for each call which of them, in runs; 0 is none."""
    known = sorted(set(progress.owners.values()))
    if not known:
        return b""
    order = {owner: number for number, owner in enumerate(known, 1)}
    runs = groupby(order.get(progress.owners.get(offset, -1), 0) for offset in sorted(progress.handed))
    spelt = (_number(number) + _number(len(list(run))) for number, run in runs)
    return b"".join((_number(len(known)), *(struct.pack(">I", owner) for owner in known), *spelt))


def _packed(body: bytes) -> str | None:
    """Make text of a body; None where that would be longer than what is kept or read."""
    checked = struct.pack(">I", zlib.crc32(body)) + body
    packed = zlib.compress(checked, 9, wbits=-15)
    letter, shorter = ("z", packed) if len(packed) < len(checked) else ("r", checked)
    text = f"{_NAME}{_VERSION}:{letter}{base64.b85encode(shorter).decode('ascii')}"
    return text if len(text) <= MAX_CHARACTERS - _SPARE and len(checked) <= _MOST_BYTES else None


def _unpacked(text: str) -> bytes:
    try:
        raw = base64.b85decode(text[1:].encode("ascii"))
    except ValueError:
        raise Unreadable("it holds characters that it never should") from None
    match text[:1]:
        case "z":
            raw = _inflated(raw)
        case "r":
            pass
        case _:
            raise Unreadable("its packing is unknown")
    if len(raw) < 4 or zlib.crc32(raw[4:]) != struct.unpack(">I", raw[:4])[0]:
        raise Unreadable("it is damaged: its checksum is wrong")
    return raw[4:]


def _inflated(packed: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=-15)
    try:
        raw = inflate.decompress(packed, _MOST_BYTES)
    except zlib.error:
        raise Unreadable("it is damaged: it does not unpack") from None
    if inflate.unconsumed_tail:
        raise Unreadable("it unpacks to more than it ever should")
    return raw


# ------------------------------------------------------------------ the body


def _set(frontier: int, ranges: Sequence[range]) -> bytes:
    runs, bits = _runs(frontier, ranges), _bits(frontier, ranges, _MOST_BITS)
    if bits is not None and len(bits) < len(runs):
        return bytes((_BITS,)) + _number(len(bits)) + bits
    return bytes((_RUNS,)) + _number(len(ranges)) + runs


def _runs(frontier: int, ranges: Iterable[range]) -> bytes:
    spelt = bytearray()
    at = frontier
    for one in ranges:
        spelt += _number(one.start - at) + _number(len(one))
        at = one.stop
    return bytes(spelt)


def _bits(frontier: int, ranges: Sequence[range], most: int) -> bytes | None:
    """Spell a set as a bitset; None where that would take more than `most` bits."""
    if not ranges or ranges[-1].stop - frontier > most:
        return None
    mask = 0
    for one in ranges:
        mask |= ((1 << len(one)) - 1) << (one.start - frontier)
    return mask.to_bytes((ranges[-1].stop - frontier + 7) // 8, "little")


def _number(value: int) -> bytes:
    spelt = bytearray()
    while value > 0x7F:
        spelt.append(value & 0x7F | 0x80)
        value >>= 7
    spelt.append(value)
    return bytes(spelt)


class _Numbers:
    """Reads a body from its front; IndexError or ValueError where it ends early or is malformed."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self._body[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift >= 63:
                raise ValueError("a number is too long")
        if value >= _MOST_NUMBER:
            raise ValueError("a number is too high")
        return value

    def raw(self, length: int) -> bytes:
        found = self._body[self._at : self._at + length]
        if len(found) != length:
            raise ValueError("it ends too early")
        self._at += length
        return found

    def ends(self) -> bool:
        return self._at == len(self._body)


def _read_body(frontier: int, numbers: _Numbers) -> Progress:
    settled = tuple(_read_set(frontier, numbers))
    waited = list(_read_set(frontier, numbers))
    if sum(map(len, waited)) > _MOST_BYTES:
        raise ValueError("more calls than anybody runs are handed over")
    handed = tuple(offset for one in waited for offset in one)
    until = numbers.number()
    followed = {struct.unpack(">I", numbers.raw(4))[0]: numbers.number() for _ in range(numbers.number())}
    owners = {} if numbers.ends() else dict(_read_owners(handed, numbers))
    if not numbers.ends():
        raise ValueError("something follows it")
    if any(one.stop - frontier > _MOST_SPAN for one in (*settled, *waited)):
        raise ValueError("it reaches further than anybody reads ahead")
    return Progress(settled, handed, until, followed, owners)


def _read_owners(handed: Sequence[int], numbers: _Numbers) -> Iterator[tuple[int, int]]:
    known = [struct.unpack(">I", numbers.raw(4))[0] for _ in range(numbers.number())]
    if not (known and handed):
        raise ValueError("something follows it")
    at = 0
    while at < len(handed):
        number, length = numbers.number(), numbers.number()
        if not 0 < length <= len(handed) - at or number > len(known):
            raise ValueError("its owners are not those of its calls")
        if number:
            yield from ((offset, known[number - 1]) for offset in handed[at : at + length])
        at += length


def _read_set(frontier: int, numbers: _Numbers) -> Iterator[range]:
    kind, count = numbers.number(), numbers.number()
    if kind == _BITS:
        if count > _MOST_BITS // 8:
            raise ValueError("a set is too long")
        yield from _read_bits(frontier, numbers.raw(count))
        return
    if kind != _RUNS:
        raise ValueError(f"a set of kind {kind}")
    at = frontier
    for _ in range(count):
        start = at + numbers.number()
        at = start + numbers.number()
        yield range(start, at)


def _read_bits(frontier: int, spelt: bytes) -> Iterator[range]:
    # From the right: "0b1101" has its runs of ones where the settled offsets are.
    text = bin(int.from_bytes(spelt, "little"))[:1:-1]
    at = 0
    while (start := text.find("1", at)) >= 0:
        stop = text.find("0", start)
        at = len(text) if stop < 0 else stop
        yield range(frontier + start, frontier + at)
