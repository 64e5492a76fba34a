"""A letter's history, where it is long, cut short, or goes in a circle."""

from __future__ import annotations

from dataclasses import replace

from pipeline.core import headers as h
from pipeline.core.payloads import Audit
from pipeline.core.record import Headers, Outgoing
from pipeline.ops.letter_marks import Choice, Wish, mark, plan_marks
from pipeline.ops.letter_show import hex_dump, story
from tests.ops.letter_world import GRAVE, LetterWorld, letter_world

QUARANTINE = Wish("quarantine", "ann", "came back too often")


def came_of(letter: str) -> Headers:
    """Headers of a letter that was another one before."""
    return (h.REPLAY_ID, b"r"), (h.REPLAY_LETTER, letter.encode()), (h.REPLAY_COUNT, b"1")


async def quarantined(world: LetterWorld, letter: str) -> None:
    """Write of a letter where it stands."""
    letters = await world.letters()
    choice = Choice(named=await letters.find_all([letter]))
    await mark(letters, choice, QUARANTINE, await plan_marks(letters, choice, QUARANTINE), "")


async def test_former_lives_are_followed_to_the_first() -> None:
    """Each by what the state topic tells of its place."""
    async with letter_world() as world:
        first = await world.bury(replace(GRAVE, code="first"))
        second = await world.bury(replace(GRAVE, code="second"), headers=came_of(first))
        third = await world.bury(headers=came_of(second))
        for one in (first, second):
            await quarantined(world, one)
        letters = await world.letters()
        told = await story(letters, await letters.find(third))
        lives = [(one.letter, one.head and one.head.code, one.state.state) for one in told.former]
        assert [(second, "second", "quarantined"), (first, "first", "quarantined")] == lives


async def test_a_former_life_of_which_nothing_is_told_is_named() -> None:
    """Its entry was taken back, or never written: its id is all there is, and so is a place with another letter."""
    async with letter_world() as world:
        gone = "9b2f7c1e-5d0a-5c55-9d0c-0f6f6a1f6e51"
        letter = await world.bury(headers=came_of(gone))
        letters = await world.letters()
        told = await story(letters, await letters.find(letter))
        assert [(gone, None, "open")] == [(one.letter, one.head, one.state.state) for one in told.former]


async def test_a_circle_of_lives_ends() -> None:
    """Headers can claim anything."""
    async with letter_world() as world:
        first = await world.bury()
        found = (await (await world.letters()).find(first)).record
        await quarantined(world, first)
        world.broker.append(Outgoing(found.topic, None, b"", came_of(first), found.partition))
        letters = await world.letters()
        told = await story(letters, await letters.find("p.infer.dlq/0/1"))
        assert [first] == [one.letter for one in told.former]


async def test_the_audit_is_read_by_subject_and_by_name() -> None:
    """What was done to it alone, and to many of which it was one; junk on the topic is passed over."""
    async with letter_world() as world:
        first, second = await world.bury(), await world.bury()
        for subject, ids in ((first, ""), ("", f"{second} {first}"), (second, second), ("paused", "")):
            audit = Audit(action="a", subject=subject, at_ms=1, details={"ids": ids})
            world.broker.append(Outgoing("p.audit", b"", await world.codec.encode("audit", audit), (), 0))
        world.broker.append(Outgoing("p.audit", b"", b"junk", (), 0))
        letters = await world.letters()
        told = await story(letters, await letters.find(first))
        assert [first, ""] == [one.subject for one in told.audits]
        assert ([], "contexts/v1", "") == (told.entries, told.version, told.unreadable)


def test_bytes_are_dumped_in_lines() -> None:
    """Offset, hexadecimal and text; the last line is as wide as the others."""
    first, second = hex_dump(bytes(range(0x41, 0x53)))
    assert "00000000  41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50  ABCDEFGHIJKLMNOP" == first
    assert f"00000010  51 52{' ' * 42}  QR" == second
    assert [] == hex_dump(b"")
