"""Live lines: one for each record, whatever it is, and only those that are wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Audit, Document
from pipeline.core.record import Record
from pipeline.devkit.clock import wall
from pipeline.ops.explain_layout import layout
from pipeline.ops.tail import SHORT, Line, Tail, Wanted, chosen, seconds
from pipeline.topology import STAGES
from tests.ops.explain_world import DELIVERED, FIRST, LAYOUT, WORK, Site
from tests.runtime.world import JsonCodec


async def stream(records: Iterable[Record]) -> AsyncIterator[Record]:
    """Hand records out as a live reader does."""
    for record in records:
        yield record


async def told(records: Iterable[Record], wanted: Wanted | None = None) -> list[Line]:
    """The lines of records."""
    tail = Tail(LAYOUT, JsonCodec(), wall, wanted or Wanted())
    return [line async for line in tail.lines(stream(records))]


async def lived() -> Site:
    """A site where a job was delivered and another one died."""
    site = await Site.make(partitions=1)
    await site.start(FIRST)
    answers: dict[str, list[Any]] = {"a!": [[DELIVERED]], "b!": [ValueError("odd")] * 3}
    await site.start(WORK, **answers)
    site.ask("a", "1")
    site.ask("b", "2")
    await site.world.until(lambda: site.end("t.deliveries") and site.letters())
    await site.world.settle()
    await site.world.stop()
    return site


@pytest.mark.virtual
async def test_each_record_has_one_line_that_says_what_it_is() -> None:
    """Where it stands, who wrote it, whose job it is of, and what it says."""
    site = await lived()
    job = h.texts(site.world.records("t.in")[0].headers)[h.CE_SUBJECT]
    topics = ("t.open", "t.in", "t.work.retry.10s", "t.work.dlq", "t.failures", "t.deliveries")
    records = [record for topic in topics for record in site.world.records(topic)]
    lines = await told(records)
    assert len(lines) == len(records)
    assert lines[0].text.endswith(f"  open:0@0  request  {job[:SHORT]} - default  open of default, 42 bytes")
    assert lines[-1].text.endswith("delivered to crm, job.completed, status 200")
    assert any("work dead letter" in line.text and "unexpected: ValueError: odd" in line.text for line in lines)
    assert any("work retry" in line.text and "waits in 10s until" in line.text for line in lines)
    assert [line.plain["topic"] for line in lines if line.bad] == ["t.work.dlq", "t.failures"]


@pytest.mark.virtual
async def test_filters_leave_only_what_is_wanted() -> None:
    """By job, whose id may be cut short, by tenant, type and writer; several must all hold."""
    site = await lived()
    records = [*site.world.records("t.in"), *site.world.records("t.failures")]
    job = h.texts(records[0].headers)[h.CE_SUBJECT]
    assert len(await told(records)) == 3
    assert len(await told(records, Wanted(jobs=[job[:SHORT]]))) == 1
    assert len(await told(records, Wanted(stages=["work"]))) == 1
    assert len(await told(records, Wanted(tenants=["default"], stages=["first"]))) == 2
    assert await told(records, Wanted(tenants=["acme"])) == []
    assert await told(records, Wanted(types=["quick"])) == []
    assert len(await told(records, Wanted().of({"t.in": (), "t.failures": ("first",)}))) == 2


@pytest.mark.virtual
async def test_what_cannot_be_decoded_gets_its_line_with_the_reason() -> None:
    """It ends nothing: the next record is told as ever."""
    junk = [
        Record("t.in", 0, 0, None, b"junk"),
        Record("t.in", 0, 1, None, None),
        Record("t.control", 0, 0, None, b"x"),
    ]
    lines = await told([*junk, Record("t.deliveries", 0, 0, None, DELIVERED.model_dump_json().encode())])
    assert [line.bad for line in lines] == [True, True, True, False]
    assert "cannot be decoded: cannot decode the value as in" in lines[0].text
    assert "cannot be decoded: the record has a null value" in lines[1].text
    assert "cannot be decoded: cannot decode the value as control" in lines[2].text


@pytest.mark.virtual
async def test_what_people_do_is_told_among_the_rest() -> None:
    """An audit record has a line of its own, unless only records of jobs are asked for."""
    value = Audit(action="replay.started", subject="r", operator="ann", reason="fixed", at_ms=1_000).model_dump_json()
    record = Record("t.audit", 0, 0, b"r", value.encode())
    (line,) = await told([record, Record("t.others", 0, 0, None, None)])
    assert line.text == "1970-01-01 00:00:01.000Z  audit:0@0  audit  replay.started r by ann: fixed"
    assert await told([record], Wanted(tenants=["acme"])) == []
    gone = Record("t.control", 0, 0, b"pause/all", None, (), 1_000)
    assert "control  taken back pause/all" in (await told([gone]))[0].text


@pytest.mark.virtual
async def test_a_document_is_called_one() -> None:
    """Not a request, though outsiders write both."""
    value = Document(source="s", id="1", tenant="acme", title="t", body="b", version=1).model_dump_json().encode()
    tail = Tail(layout("p", STAGES), JsonCodec(), wall, Wanted())
    (line,) = [one async for one in tail.lines(stream([Record("p.documents", 0, 0, None, value, (), 1_000)]))]
    assert "  documents:0@0  document  " in line.text
    assert line.text.endswith(f"  s of acme, {len(value)} bytes")


def test_topics_and_stages_are_found_by_name() -> None:
    """A stage stands for what it writes; a name that nobody has is an error that lists those there are."""
    assert set(chosen(LAYOUT, [])) == {*LAYOUT.places, *LAYOUT.people}
    assert chosen(LAYOUT, ["in", "t.open", "audit"]) == {"t.in": (), "t.open": (), "t.audit": ()}
    found = chosen(LAYOUT, ["work", "failures"])
    assert found["t.failures"] == ()
    assert found["t.deliveries"] == ["work"]
    assert found["t.work.dlq"] == ["work"]
    assert "t.in" not in found
    with pytest.raises(
        ConfigurationError, match="'wrk' is neither a stage nor a topic of the pipeline: there are first"
    ):
        chosen(LAYOUT, ["wrk"])


@pytest.mark.parametrize("text, found", [("30", 30.0), ("30s", 30.0), ("1.5m", 90.0), ("2h", 7_200.0)])
def test_spans_of_time_are_read(text: str, found: float) -> None:
    """A plain number is seconds."""
    assert seconds(text, "--for") == found


def test_a_span_that_is_none_names_its_option() -> None:
    """And says how one is written."""
    with pytest.raises(ConfigurationError, match="--for 'soon' is no span of time: give one such as 30s"):
        seconds("soon", "--for")
