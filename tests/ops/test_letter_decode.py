"""Decoding dead letters as their stage would have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Reject, Retry
from pipeline.core.letter import read_head
from pipeline.core.payloads import Document, Payload, Request
from pipeline.core.record import Record
from pipeline.ops.letter_decode import LetterDecoder, dead_topics
from tests.core.test_letter import dead
from tests.ops.letter_world import GRAVE, JOB, PREFIX, STAGES, LetterWorld, letter_world

INDEX = replace(GRAVE, stage="index")
DOCUMENT = Document(source="rows", id="1", tenant="umbrella", title="t", body="b", version=1)


class Rows:
    """Decodes one foreign topic."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.records: list[Record] = []

    @property
    def topics(self) -> Collection[str]:
        """The topics it reads."""
        return ["app.rows"]

    async def decode(self, record: Record, topic: str) -> Payload:
        """Decode."""
        self.records.append(record)
        if self.error is not None:
            raise self.error
        return DOCUMENT


def decoder(rows: Rows) -> LetterDecoder:
    """A decoder of the index's letters, some of which are of a foreign topic."""
    return LetterDecoder(dead_topics(PREFIX, [STAGES["index"]], rows), LetterWorld().codec)


ROW = Record("app.rows", 1, 7, b"key", b"{}", (("ce_id", b"not ours"), (h.TENANT, b"forged")), 1_700_000_000_000)


async def test_what_stood_on_a_foreign_topic_is_decoded_as_such() -> None:
    """By its decoder, as the record that it first was; what looks like ours in its headers is not believed."""
    rows = Rows()
    letter = dead(ROW, INDEX)
    event = await decoder(rows).event(letter, read_head(letter, open_topic=True))
    assert [replace(ROW)] == rows.records
    assert (DOCUMENT, "umbrella") == (event.payload, event.job.tenant)
    told = await decoder(rows).told(letter, read_head(letter, open_topic=True))
    assert (event.job.id, False) == (told.job, told.opaque)


@pytest.mark.parametrize("error", [Reject("no row"), Defer("away", until=1.0), Retry("it errs")])
async def test_what_cannot_be_decoded_stays_opaque(error: Exception) -> None:
    """Whatever hinders it: the letter is shown as far as its headers go."""
    letter = dead(ROW, INDEX)
    head = read_head(letter, open_topic=True)
    assert head == await decoder(Rows(error)).told(letter, head)
    with pytest.raises((Reject, Defer)):
        await decoder(Rows(error)).event(letter, head)


async def test_a_replays_change_is_seen() -> None:
    """A letter of a patched replay shows the event as the stage had it: another type, another run."""
    change = (h.REPLAY_ID, b"r"), (h.REPLAY_RUN, b"3"), (h.REPLAY_PATCH, b'{"type": "deep"}')
    async with letter_world() as world:
        letter = await world.bury(replace(GRAVE, stage="preprocess"), JOB, headers=change)
        letters = await world.letters()
        found = await letters.find(letter)
        event = await letters.ports.decoder.event(found.record, found.head)
        assert ("deep", 3) == (event.job.type, event.job.run)
        assert isinstance(event.payload, Request)
        assert "deep" == event.payload.type


async def test_of_a_topic_that_no_stage_reads_nobody_knows() -> None:
    """It is said in words."""
    letter = replace(dead(), topic="q.gone.dlq")
    with pytest.raises(Reject, match="no stage here reads what it was"):
        await decoder(Rows()).event(letter, read_head(letter))
