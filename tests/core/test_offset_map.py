"""The offset map: what is spelt is read again, whole; everything else is refused, never guessed at."""

from __future__ import annotations

import base64
import contextlib
import itertools
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.offset_map import MAX_CHARACTERS, NOTHING, Progress, Unreadable, could_overflow, mark, read, spell
from tests.examples import at_most

FRONTIERS = st.integers(0, 2**50)


@st.composite
def progresses(draw: st.DrawFn, frontier: int) -> Progress:
    """Any progress whose map fits: ranges with holes between them, calls handed over, topics followed."""
    steps = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 300)), max_size=200))
    ranges, at = [], frontier
    for hole, run in steps:
        ranges.append(range(at + hole, at + hole + run))
        at = ranges[-1].stop
    handed = draw(st.sets(st.integers(frontier, frontier + 5_000), max_size=60))
    followed = draw(st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**50), max_size=6))
    owned = {one: draw(st.sampled_from([0, 7, 2**32 - 1, None])) for one in sorted(handed)}
    owners = {one: owner for one, owner in owned.items() if owner is not None}
    return Progress(tuple(ranges), tuple(sorted(handed)), draw(st.integers(0, 2**40)), followed, owners)


@given(st.data(), FRONTIERS)
def test_what_is_spelt_is_read_again(data: st.DataObject, frontier: int) -> None:
    """In ASCII without control characters, within what a broker keeps."""
    progress = data.draw(progresses(frontier))
    text = spell(frontier, progress)
    assert len(text) <= MAX_CHARACTERS
    assert text.isascii()
    assert text.isprintable()
    if text or progress == NOTHING:
        assert read(frontier, text) == progress
    else:
        assert (progress.settled, progress.handed, progress.followed) == ((), (), {})


@pytest.mark.parametrize("metadata", ["", None])
def test_nothing_is_nothing(metadata: str | None) -> None:
    """No metadata say nothing, and nothing needs none."""
    assert read(5, metadata) == NOTHING
    assert spell(5, NOTHING) == ""


def packed(body: bytes, letter: str = "r", checksum: int | None = None) -> str:
    """Pack a body as the format has it, or wrongly."""
    checked = struct.pack(">I", zlib.crc32(body) if checksum is None else checksum) + body
    return f"lep1:{letter}{base64.b85encode(checked).decode()}"


def zipped(body: bytes) -> str:
    """Pack a body as the format has it, compressed."""
    checked = struct.pack(">I", zlib.crc32(body)) + body
    return f"lep1:z{base64.b85encode(zlib.compress(checked, 9, wbits=-15)).decode()}"


CALL = b"\x00\x00\x00\x01\x01\x01\x00\x00"
OWNER = b"name"
"""A body up to its owners, with one call handed over; and an owner."""

BOMB = base64.b85encode(zlib.compress(bytes(10_000_000), 9, wbits=-15)).decode()


@pytest.mark.parametrize(
    "metadata, why",
    [
        ("consumer-metadata", "another application"),
        ('{"a": 1}', "another application"),
        ("NO_METADATA", "another application"),
        (":", "another application"),
        ("lep:", "another application"),
        ("lepx:r", "another application"),
        ("lep2:rabc", "version 2"),
        ("lep99999999999999999:r", "version 9999999999,"),
        ("lep1:", "packing"),
        ("lep1:q00000", "packing"),
        ("lep1:r", "damaged"),
        ("lep1:r~~~~~", "characters"),
        ("lep1:r'quoted'", "characters"),
        ("lep1:rä", "characters"),
        ("lep1:zzzzzzzzzzz", "unpack"),
        (f"lep1:z{BOMB}", "longer" if len(BOMB) > MAX_CHARACTERS else "more than"),
        (packed(b"\x00\x00\x00\x00\x00\x00", checksum=7), "checksum"),
        (packed(b""), "does not read"),
        (packed(b"\x00\x00"), "does not read"),
        (packed(b"\x07\x00\x00\x00\x00\x00"), "kind 7"),
        (packed(b"\x00\x00\x00\x00\x00\x00\x00"), "follows"),
        (packed(b"\x00\x01" + b"\xff" * 20 + b"\x01"), "does not read"),
        (packed(b"\x01\x64\x01"), "too early"),
        (packed(b"\x00\x00\x00\x01\x00\xff\xff\xff\x7f\x00\x00"), "more calls"),
        (packed(b"\x00\x01\x01" + b"\xff" * 4 + b"\x7f" + bytes(4)), "further than anybody"),
        (packed(b"\x00\x01" + b"\xff" * 60_000), "longer"),
        (zipped(b"\x00\x01" + b"\xff" * 60_000), "too long"),
        (zipped(b"\x00\x01\x01" + b"\xff" * 8 + b"\x7f" + bytes(4)), "too high|further than anybody"),
        (zipped(b"\x01\x81\x20" + b"\x55" * 4_097 + bytes(4)), "too long"),
        (zipped(b"\x00\xff\xff\xff\xff\x7f"), "does not read"),
        (zipped(bytes(6) + b"\x01" + OWNER), "follows"),
        (zipped(CALL + b"\x01" + OWNER[:3]), "too early"),
        (zipped(CALL + b"\x01" + OWNER + b"\x02\x01"), "owners"),
        (zipped(CALL + b"\x01" + OWNER + b"\x01\x00"), "owners"),
        (zipped(CALL + b"\x01" + OWNER + b"\x01\x02"), "owners"),
        (zipped(CALL + b"\x01" + OWNER), "does not read"),
        (zipped(CALL + b"\xff\xff\xff\xff\x7f" + OWNER), "too early"),
        ("lep1:r" + "0" * MAX_CHARACTERS, "longer"),
    ],
)
def test_what_is_not_ours_and_whole_is_refused(metadata: str, why: str) -> None:
    """Another application's, a newer version's, damaged, malformed: each with its reason, none with a guess."""
    with pytest.raises(Unreadable, match=why):
        read(100, metadata)


@given(st.data(), st.integers(0, 10_000))
def test_a_damaged_map_is_never_believed(data: st.DataObject, cut: int) -> None:
    """Cut off anywhere or changed in one place, it is refused: a wrong map would lose records."""
    progress = data.draw(progresses(1_000).filter(lambda one: one.settled))
    text = spell(1_000, progress)
    place = cut % len(text)
    changed = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
    for damaged in (text[:place], changed):
        with contextlib.suppress(Unreadable):
            assert read(1_000, damaged) == (NOTHING if not damaged else progress)


@given(st.text(max_size=100) | st.binary(max_size=100).map(packed) | st.binary(max_size=100).map(zipped))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else happens, whatever the broker hands back, and what is read has bounds."""
    with contextlib.suppress(Unreadable):
        found = read(0, text)
        assert all(one.stop <= 2**32 for one in found.settled)
        assert len(found.handed) <= 65_536
        assert set(found.owners) <= set(found.handed)


@pytest.mark.parametrize("pattern", [b"\x55", b"\x01", b"\xff"])
def test_what_unpacks_to_much_is_bounded(pattern: bytes) -> None:
    """The most that few characters can say: a bitset as long as one may be, and as many runs as a body holds."""
    bits = zipped(b"\x01\x80\x20" + pattern * 4_096 + bytes(4))
    assert len(bits) < 200
    assert 1 <= len(read(0, bits).settled) <= 16_384
    runs = zipped(b"\x00\x80\xe0\x01" + b"\x01\x01" * 28_672 + bytes(4))
    assert len(runs) < 200
    assert len(read(0, runs).settled) == 28_672


@settings(max_examples=at_most(20))
@given(st.integers(0, 40_000), st.integers(1, 700), st.randoms(use_true_random=False))
def test_what_could_not_overflow_does_not(span: int, owed: int, random: object) -> None:
    """While `could_overflow` says no, no way of settling what is owed makes a map too long to be kept whole."""
    frontier = 10_000_000
    owed = min(owed, max(span, 1))
    if could_overflow(span, owed):
        return
    places = sorted(random.sample(range(span), owed - 1)) if span and owed > 1 else []  # type: ignore[attr-defined]  # a Random
    edges = [frontier, *(frontier + 1 + place for place in places), frontier + 1 + span]
    ranges = tuple(range(one + 1, two) for one, two in itertools.pairwise(edges) if one + 1 < two)
    progress = Progress(ranges, followed={mark(f"topic-{number}"): 2**40 for number in range(6)})
    assert read(frontier, spell(frontier, progress)) == progress


def test_too_long_a_map_gives_up_its_end() -> None:
    """Where it does not fit all the same, the last ranges are left out: their records are repeated, none is lost."""
    ranges = tuple(range(place, place + 1) for place in range(2, 300_000, 7) if place % 11)
    text = spell(0, Progress(ranges))
    assert 0 < len(text) <= MAX_CHARACTERS
    kept = read(0, text).settled
    assert 0 < len(kept) < len(ranges)
    assert ranges[: len(kept)] == kept


def test_a_stuck_record_costs_next_to_nothing() -> None:
    """A million records behind one that is stuck are a map of a few characters, so nothing has to wait for it."""
    assert not could_overflow(1_000_000, 1)
    assert len(spell(5, Progress((range(6, 1_000_006),)))) < 40


@settings(max_examples=10)
@given(st.integers(1, 300), st.integers(1, 300), st.randoms(use_true_random=False))
def test_calls_that_are_handed_over_find_room(owed: int, running: int, random: random.Random) -> None:
    """Where `could_overflow` says no, whose they are is kept whole, too, however it is mixed."""
    frontier, span = 10_000_000, 2_000_000
    if could_overflow(span, owed + running, running):
        return
    places = sorted(random.sample(range(frontier, frontier + span), owed + running))
    ranges = tuple(range(one + 1, two) for one, two in itertools.pairwise(places) if one + 1 < two)
    handed = tuple(sorted(random.sample(places, running)))
    owners = {offset: random.choice([7, 2**31, 2**32 - 1]) for offset in handed}
    followed = {mark(f"topic-{number}"): 2**40 for number in range(6)}
    progress = Progress(ranges, handed, 2**31, followed, owners)
    assert read(places[0], spell(places[0], progress)) == progress
