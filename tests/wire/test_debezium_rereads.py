"""Tests of pipeline/wire/debezium_rereads.py: what a change does not tell is read from the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.core.errors import ConfigurationError, Defer, Outcome, Reject, Retry
from pipeline.core.payloads import Document, Nothing, Payload
from pipeline.core.tables import PLACEHOLDER
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.debezium_rereads import UNSEEN_SECONDS, RereadRows
from tests.wire.changes import ROW, TOPIC, envelope, record, tables

QUERY = "SELECT title, body FROM notes WHERE id = $1"
COMMITTED = 1_700_000_000.123
"""When the changes of `envelope` were committed."""


@dataclass
class Rows:
    """A source database: its rows by key, and what was asked."""

    rows: dict[str, Mapping[str, object]] = field(default_factory=dict)
    names: Sequence[str] = ("title", "body")
    asked: list[tuple[str, str]] = field(default_factory=list)
    trouble: Outcome | None = None

    async def row(self, query: str, key: str) -> Mapping[str, object] | None:
        self.asked.append((query, key))
        if self.trouble:
            raise self.trouble
        return self.rows.get(key)

    async def columns(self, query: str) -> Sequence[str]:
        if self.trouble:
            raise self.trouble
        return self.names


def reader(rows: Rows, now: float = COMMITTED + 60, **changes: Any) -> RereadRows:
    """What reads rows again, by the mapping of one table."""
    return RereadRows(tables(reread=QUERY, **changes), rows, lambda: now)


async def decoded(rows: Rows, after: Mapping[str, object], now: float = COMMITTED + 60, **changes: Any) -> Payload:
    """Decode an update to the row `after`."""
    decoder = ChangeDecoder(tables(reread=QUERY, **changes), None, reader(rows, now, **changes))
    return await decoder.decode(record(envelope("u", after=after)), TOPIC)


def kept(**changes: Any) -> Document:
    """A document whose body is not told."""
    told: dict[str, Any] = {
        "source": "notes",
        "id": "n1",
        "tenant": "acme",
        "title": "Hours",
        "body": "",
        "version": 77,
    }
    return Document(**(told | {"body_kept": True, "committed_at_ms": int(COMMITTED * 1000)} | changes))


async def test_a_kept_body_is_read_at_the_version_of_the_change() -> None:
    """What the change tells stays, also where the row has gone on: the next change brings that."""
    rows = Rows({"n1": {"title": "Newer", "body": "We open at ten."}})
    whole = await reader(rows).reread(kept(former="n0"))
    assert whole == kept(body="We open at ten.", body_kept=False)
    assert rows.asked == [(QUERY, "n1")]


async def test_a_change_without_a_part_of_the_row_is_read_at_once() -> None:
    """A title, a tenant, a field, or one body column of several: the whole document is made of both."""
    rows = Rows({"n1": {"title": "Hours", "tenant": "acme", "lang": "en", "body": "We open at ten."}})
    for name in ("title", "tenant", "lang"):
        made = await decoded(rows, {**ROW, name: PLACEHOLDER})
        assert isinstance(made, Document)
        assert (made.title, made.tenant, made.fields, made.body, made.version) == (
            ("Hours", "acme", {"lang": "en"}, ROW["body"], 77)
        )
    rows.rows["n1"] = {"body": "We open at ten.", "summary": "Early."}
    made = await decoded(rows, {**ROW, "summary": "Late.", "body": PLACEHOLDER}, body=["summary", "body"])
    assert isinstance(made, Document)
    assert (made.body, made.body_kept) == ("Late.\n\nWe open at ten.", False)


async def test_a_whole_body_is_not_read_before_it_is_needed() -> None:
    """The index may have it: then nobody is asked."""
    rows = Rows()
    made = await decoded(rows, {**ROW, "body": PLACEHOLDER})
    assert isinstance(made, Document)
    assert (made.body_kept, rows.asked) == (True, [])


async def test_what_is_read_is_known_even_where_it_looks_like_the_placeholder() -> None:
    """A database has no placeholder: a user has typed it."""
    rows = Rows({"n1": {"title": PLACEHOLDER, "body": PLACEHOLDER}})
    made = await decoded(rows, {**ROW, "title": PLACEHOLDER, "body": PLACEHOLDER})
    assert isinstance(made, Document)
    assert (made.title, made.body, made.body_kept) == (PLACEHOLDER, PLACEHOLDER, False)
    whole = await reader(rows).reread(kept())
    assert isinstance(whole, Document)
    assert whole.body == PLACEHOLDER


async def test_a_row_that_is_gone_asks_for_nothing() -> None:
    """Its deletion comes. Right after its commit it may only not be seen yet."""
    assert isinstance(await reader(Rows()).reread(kept()), Nothing)
    assert isinstance(await reader(Rows()).reread(kept(committed_at_ms=None)), Nothing)
    assert isinstance(await decoded(Rows(), {**ROW, "title": PLACEHOLDER}), Nothing)
    for early in (
        reader(Rows(), COMMITTED + 1).reread(kept()),
        decoded(Rows(), {**ROW, "title": PLACEHOLDER}, COMMITTED + 1),
    ):
        with pytest.raises(Defer) as deferred:
            await early
        assert deferred.value.until == pytest.approx(COMMITTED + UNSEEN_SECONDS)


@pytest.mark.parametrize(
    "row, code",
    [
        ({"title": "Hours"}, "no_column"),
        ({"body": b"bytes"}, "unreadable_column"),
        ({"body": "\ud800"}, "unreadable_column"),
    ],
)
async def test_what_is_read_is_checked_like_what_is_told(row: Mapping[str, object], code: str) -> None:
    """A column that is not there or is no text is refused, and its value is not shown."""
    with pytest.raises(Reject, match="`reread` of notes") as refused:
        await reader(Rows({"n1": row})).reread(kept())
    assert refused.value.code == code


async def test_a_query_that_leaves_out_what_is_needed_changes_nothing() -> None:
    """The record is refused as without a query."""
    rows = Rows({"n1": {"body": "We open at ten."}})
    with pytest.raises(Reject) as refused:
        await decoded(rows, {**ROW, "title": PLACEHOLDER})
    assert refused.value.code == "unavailable_value"


@pytest.mark.parametrize("trouble", [Defer("away", until=1.0), Retry("no such table", code="source_error")])
async def test_a_database_that_is_away_or_refuses_is_told_as_it_is(trouble: Outcome) -> None:
    """The record waits, or is tried again."""
    rows = Rows(trouble=trouble)
    for asked in (reader(rows).reread(kept()), decoded(rows, {**ROW, "title": PLACEHOLDER})):
        with pytest.raises(type(trouble)):
            await asked


async def test_without_a_query_nobody_is_asked() -> None:
    """Neither where the table has none, nor where there is no mapping, nor for documents of our own topic."""
    for tabled in (tables(), None):
        assert await RereadRows(tabled, None, lambda: 0.0).reread(kept()) is None
    assert await reader(Rows()).reread(kept(source="handbook")) is None
    await RereadRows(None, None, lambda: 0.0).check()


async def test_queries_are_looked_at_before_they_are_needed() -> None:
    """A database that is away says nothing; one that refuses the query, or a body that it lacks, ends the start."""
    await reader(Rows()).check()
    await reader(Rows(trouble=Defer("away", until=1.0))).check()
    with pytest.raises(ConfigurationError, match="`reread` of notes: no such table"):
        await reader(Rows(trouble=Retry("no such table"))).check()
    with pytest.raises(ConfigurationError, match="returns no column summary, which `body` names"):
        await reader(Rows(), body=["summary", "body"]).check()
