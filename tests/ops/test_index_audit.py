"""Tests of pipeline/ops/index_audit.py, on the engine of the index: what differs is found, and mended."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_status import PassageCensus
from pipeline.core.audit_ports import SourceRow
from pipeline.core.errors import Retry
from pipeline.core.index_ports import Chunk
from pipeline.core.payloads import Document
from pipeline.ops import index_audit
from pipeline.ops.index_audit import Seen
from pipeline.ops.index_differences import Mend, TableOf, mend, wish
from tests.clients.passage_world import SOURCE, Engine, Event, Truth, found_in
from tests.ops.audit_world import Index, World, cut, row, told

pytestmark = pytest.mark.local


async def _world(*names: str) -> World:
    """Rows that are all in the index, with two chunks each."""
    world = World()
    world.rows.put(*(row(name, f"{name} opens\n{name} closes") for name in names))
    await world.fill()
    return world


def _doc(name: str, version: int, body: str = "It opens.") -> Document:
    made = row(name, body, version=version).document
    assert made is not None
    return made


# ---- what is found ---------------------------------------------------------------------------------------------------
async def test_an_index_that_follows_has_no_differences() -> None:
    """Rows and documents are counted, nobody waits, and a row without text is in no need of a document."""
    world = await _world("a", "b")
    world.rows.put(row("blank"))
    await world.index.remove(_doc("gone", 9))
    found = await world.audit()
    assert (found.rows, found.documents, found.open, found.shown) == (3, 2, 0, [])
    assert world.waited == []
    assert ("rows of handbook", 3, 3) in world.told
    assert ("documents of handbook", 3, 3) in world.told


async def test_each_kind_of_difference_is_named() -> None:
    """Rows without document, documents that are another, documents without row: no others."""
    world = await _world("right", "title", "text", "tenant", "fields", "emptied", "gone")
    del world.rows.held["gone"]
    world.rows.put(row("never", "New."), row("removed", "Back again."))
    await world.index.remove(_doc("removed", 8))
    world.rows.put(row("title", "title opens\ntitle closes", title="Prices"), row("text", "text has another"))
    world.rows.put(row("tenant", "tenant opens\ntenant closes", tenant="rival"), row("emptied"))
    world.rows.put(row("fields", "fields opens\nfields closes", fields={"lang": "en"}))
    found = await world.audit(settle=3.0)
    assert told(found) == {
        "gone": ("orphaned", "the table has no such row"),
        "never": ("missing", "the index has nothing of it"),
        "removed": ("missing", "the index holds it as removed"),
        "title": ("stale", "another title"),
        "text": ("stale", "another text"),
        "tenant": ("stale", "another tenant"),
        "fields": ("stale", "another fields"),
        "emptied": ("stale", "its row has no text"),
    }
    assert (found.kinds, found.open) == ({"orphaned": 1, "missing": 2, "stale": 5}, 8)
    assert world.waited == [3.0]


async def test_a_refused_row_is_a_difference_only_where_the_index_has_it() -> None:
    """What the stage would refuse must not be there; what cannot be compared is no difference at all."""
    world = await _world("kept", "strange")
    world.rows.put(SourceRow("kept", None, "it has no tenant"), SourceRow("out", None, "it has no tenant"))
    world.rows.put(SourceRow("strange", None, "infinity", unknown=True), SourceRow("", None, "it has no id"))
    found = await world.audit(fix=True)
    assert told(found) == {"kept": ("refused", "it has no tenant")}
    assert (found.refused, found.unknown, found.fixed) == (2, 1, 0)
    assert "mend the row" in found.shown[0].note


DAMAGE: dict[str, tuple[str, int | None, dict[str, object] | None]] = {
    "lost chunk": ("chunk 1 is missing", 1, None),
    "lost mark": ("2 chunks have no mark", None, None),
    "text": ("chunk 0 is not as it was written", 0, {"text": "Never."}),
    "tenant": ("chunk 1 is not as it was written", 1, {"tenant": "rival"}),
    "more": ("chunk 1 is not as it was written", 1, {"left": "over"}),
    "mark": ("its mark is not as it was written", None, {"version": 10**12}),
    "unreadable mark": ("its mark is not as it was written", None, {"fields": None, "chunks": "two"}),
    "stamp": ("chunk 0 is not as it was written", 0, {"stamp": "another"}),
}


async def _damage(world: World, name: str, number: int | None, altered: dict[str, object] | None) -> None:
    if altered is None:
        await world.lose(name, number)
    else:
        await world.alter(name, number, **altered)


@pytest.mark.parametrize("kind", DAMAGE)
async def test_what_does_not_fit_together_is_torn_and_mended(kind: str) -> None:
    """A point that was lost or altered is named; afterwards the index is as it was, and others were left alone."""
    why, number, altered = DAMAGE[kind]
    world = await _world("hurt", "well")
    before = await found_in(world.engine)
    await _damage(world, "hurt", number, altered)
    assert told(await world.audit()) == {"hurt": ("torn", why)}
    mended = await world.audit(fix=True)
    assert (mended.fixed, mended.open, mended.shown[0].fixed) == (1, 0, True)
    assert (await world.audit()).open == 0
    after = await found_in(world.engine)
    assert {key: one["text"] for key, one in after.items()} == {key: one["text"] for key, one in before.items()}
    assert {one["version"] for key, one in after.items() if key[0] == "well"} == {7}


async def test_chunks_that_are_left_over_are_torn() -> None:
    """Of a document that is there, of one that was removed, and of one that nobody knows."""
    world = await _world("long", "gone")
    left = [await _chunk(world, name, number) for name, number in (("long", 1), ("gone", 0))]
    world.rows.put(row("long", "long opens"))
    del world.rows.held["gone"]
    await world.store(_doc("long", 8, "long opens"))
    await world.index.remove(_doc("gone", 8))
    strange = left[0].model_copy(update={"id": points.point_id(SOURCE, "strange", 0)})
    strange.payload = {**(strange.payload or {}), "document": "strange"}
    await world.engine.inner.upsert("passages", [*left, strange])
    found = await world.audit(fix=True)
    assert told(found) == {
        "long": ("torn", "it has 1 chunks more than its mark counts"),
        "gone": ("torn", "it has 1 chunks more than its mark counts"),
        "strange": ("torn", "1 chunks have no mark"),
    }
    assert found.open == 0
    assert (await found_in(world.engine)).keys() == {("long", 0)}


async def _chunk(world: World, name: str, number: int) -> Any:
    found = await world.engine.inner.retrieve("passages", [points.point_id(SOURCE, name, number)], with_vectors=True)
    return models.PointStruct.model_validate(found[0].model_dump(include={"id", "vector", "payload"}))


async def test_a_source_without_a_table_is_held_against_itself() -> None:
    """Surplus chunks go; a text that was lost cannot be made up, and it is said who can write it."""
    world = await _world("a", "b", "c")
    await world.lose("b", None)
    await world.alter("c", 0, text="Never.")
    found = await world.audit(mapped=False, fix=True)
    assert told(found) == {
        "b": ("torn", "2 chunks have no mark"),
        "c": ("torn", "chunk 0 is not as it was written"),
    }
    assert {one.document: one.fixed for one in found.shown} == {"b": True, "c": False}
    assert "to its topic again" in next(one.note for one in found.shown if one.document == "c")
    assert (found.mapped, found.rows, found.documents) == (False, 0, 2)


# ---- looking again ---------------------------------------------------------------------------------------------------
async def test_what_is_on_its_way_is_no_difference() -> None:
    """A change that reaches the index while the audit waits is none, and the row was asked for after the index."""
    world = await _world("a")
    world.rows.put(row("a", "a has another"))

    async def follow() -> None:
        await world.fill(8)

    world.meanwhile = follow  # type: ignore[method-assign]  # what happens while it waits
    found = await world.audit()
    assert (found.open, found.moving) == (0, 0)
    assert world.rows.asked == ["a"]


async def test_what_moves_all_the_time_is_left_for_the_next_audit() -> None:
    """A row that changes between any two looks is counted as moving, and is no difference."""
    world = await _world("a", "b")
    world.rows.put(row("a", "a 0"), row("b", "b is stale"))

    async def change() -> None:
        world.rows.put(row("a", f"a {len(world.waited)}"))

    world.meanwhile = change  # type: ignore[method-assign]  # what happens while it waits
    found = await world.audit()
    assert (told(found), found.moving) == ({"b": ("stale", "another text")}, 1)
    assert len(world.waited) == 3


async def test_a_row_that_was_inserted_while_it_read_is_no_orphan() -> None:
    """Its document is newer than the reading of the rows; its row is asked for before it is called an orphan."""
    world = await _world("a")
    await world.store(_doc("late", 8))

    async def insert() -> None:
        world.rows.put(row("late", "It opens."))

    world.meanwhile = insert  # type: ignore[method-assign]  # what happens while it waits
    assert (await world.audit()).open == 0


async def test_many_suspects_are_looked_at_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, no more wait at once than said; all are counted, and few are shown."""
    monkeypatch.setattr(index_audit, "MOST_SUSPECTS", 4)
    world = World()
    world.rows.put(*(row(f"n{number}", "New.") for number in range(9)))
    found = await world.audit(show=2)
    assert (found.kinds["missing"], len(found.shown), len(world.waited)) == (9, 2, 3)


async def test_a_sample_looks_at_so_many_rows_and_documents() -> None:
    """Both sides are drawn from, so that what is missing and what is left can be met."""
    world = await _world("a", "b", "c", "d")
    world.rows.put(row("a", "a is stale"))
    del world.rows.held["d"]
    found = await world.audit(sample=1)
    assert (found.rows, told(found).get("a")) == (1, ("stale", "another text"))
    assert found.documents <= 2
    assert told(await world.audit(sample=100)).keys() == {"a", "d"}


def test_names_are_seen_in_eight_bytes_each() -> None:
    """What was added is in, whatever the order of asking and adding."""
    seen = Seen()
    assert "a" not in seen
    for name in ("b", "a", "c"):
        seen.add(name)
        assert name in seen
    assert "d" not in seen
    assert len(seen._digests) * seen._digests.itemsize == 24


async def test_an_audit_that_fails_lets_the_table_go() -> None:
    """An index that errs ends the audit, and the reading of rows with it."""
    world = await _world("a", "b")

    async def errs(*_: object) -> None:
        assert world.rows.reading
        raise Retry("the index errs")

    world.index.entries = errs  # type: ignore[method-assign,assignment]  # an index that is broken
    with pytest.raises(Retry):
        await world.audit()
    assert not world.rows.reading


# ---- mending ---------------------------------------------------------------------------------------------------------
async def test_all_that_differs_is_mended() -> None:
    """Stale and missing ones are written, orphans removed; the next audit is clean, and later changes still win."""
    world = await _world("stale", "gone", "blank")
    del world.rows.held["gone"]
    world.rows.put(row("stale", "stale has another"), row("never", "New."), row("back", "Back."), row("blank"))
    await world.index.remove(_doc("back", 8))
    found = await world.audit(fix=True)
    assert (found.fixed, found.open) == (5, 0)
    assert (await world.audit()).open == 0
    texts = {name: one["text"] for (name, _), one in (await found_in(world.engine)).items()}
    assert texts == {"stale": "stale has another", "never": "New.", "back": "Back."}
    versions = {key.document: key.version async for key in PassageCensus.keys(world.index, SOURCE)}
    assert versions == {"stale": 7, "gone": 7, "blank": 7, "never": 1, "back": 9}


async def test_an_emptied_source_does_not_stop_what_was_inserted_later() -> None:
    """A row without a document is written above the version that its source was emptied up to."""
    world = await _world("a")
    await world.index.empty(SOURCE, 50)
    found = await world.audit(fix=True)
    assert (found.fixed, found.open) == (1, 0)
    assert {one["version"] for one in (await found_in(world.engine)).values()} == {51}


async def test_a_version_in_a_column_is_kept_to() -> None:
    """A row is written by its own version; one that is not above a removal cannot be, and it is said why."""
    world = await _world("stale", "older")
    world.rows.put(row("stale", "Changed.", version=12), row("older", "Changed.", version=3))
    world.rows.put(row("low", "Low.", version=8), row("high", "High.", version=10), row("new", "New.", version=2))
    for name in ("low", "high"):
        await world.index.remove(_doc(name, 9))
    found = await world.audit(versioned=True, fix=True)
    assert [(one.document, one.note) for one in found.shown if not one.fixed] == [
        ("low", "its row has the version 8, and was removed at 9: raise the row's")
    ]
    versions = {name: one["version"] for (name, _), one in (await found_in(world.engine)).items()}
    assert versions == {"stale": 12, "older": 7, "high": 10, "new": 2}


async def test_what_cannot_be_mended_is_said() -> None:
    """A store that does nothing leaves the difference, and the audit says that it looked."""
    world = await _world("a")
    world.rows.put(row("a", "a has another"))

    async def nothing(*_: object) -> None:
        pass

    world.index.replace = nothing  # type: ignore[method-assign,assignment]  # a store that is broken
    found = await world.audit(fix=True)
    assert (found.open, found.shown[0].note) == (1, "it still differs: stale, another text")


# ---- while the stream goes on ----------------------------------------------------------------------------------------
class Stream:
    """A source, the stage that follows it with a delay, and audits that look now and mend later."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.truth = Truth(random)
        self.engine = Engine()
        self.index = Index(self.engine)
        self.delivered = 0
        self.planned: list[tuple[str, Mend]] = []
        self.waiting: list[Event] = []

    async def look(self) -> None:
        """Look at a document, at the index first, and plan what would make it equal to its row."""
        name = self.random.choice("ab")
        entry = (await self.index.entries(SOURCE, [name])).get(name)
        emptied = await self.index.emptied(SOURCE)
        held = self.truth.held.get(name)
        wanted = None
        if held is not None:
            document, texts = held
            told = SourceRow(name, document.model_copy(update={"body": "\n".join(texts), "version": 0}))
            wanted = wish(told, cut, self.index.content)
        self.planned.append((name, mend(wanted, entry, emptied, TableOf(SOURCE, versioned=False))))

    async def mend(self) -> None:
        """Carry out one of the plans, however old it is."""
        if not self.planned:
            return
        name, todo = self.planned.pop(self.random.randrange(len(self.planned)))
        if todo.discard:
            await self.index.discard(SOURCE, name, surplus=todo.discard == "surplus")
        if todo.document and todo.document.deleted:
            await self.index.remove(todo.document)
        elif todo.document:
            await self.index.replace(todo.document, [Chunk(n, one.text) for n, one in enumerate(todo.chunks)])

    async def deliver(self) -> None:
        """Let the stage handle the next change; one that is without the text it needs is retried by topic."""
        if self.delivered < len(self.truth.events):
            event = self.truth.events[self.delivered]
            self.delivered += 1
            if not await self._tell(event):
                self.waiting.append(event)

    async def repeat(self) -> None:
        """Let the stage handle a change once more; one that waits for a text would be tried again."""
        if self.delivered:
            await self._tell(self.truth.events[self.random.randrange(self.delivered)])

    async def _tell(self, event: Event) -> bool:
        return await event.tell(self.index) is not None

    async def step(self) -> None:
        """Let anything happen."""
        match self.random.randrange(6):
            case 0 | 1:
                self.truth.go_on()
            case 2:
                await self.deliver()
            case 3:
                await self.repeat()
            case 4:
                await self.look()
            case _:
                await self.mend()


@settings(max_examples=20)
@example(seed=30191, length=5)  # nothing is ever written
@example(seed=2507861, length=15)  # a document is mended away while a change without its body is to come
@given(seed=st.integers(0, 2**32), length=st.integers(5, 40))
async def test_the_newest_state_wins_whenever_the_index_is_mended(seed: int, length: int) -> None:
    """Changes, repeats, looks and mends in any order, each mend as late as it likes: once all changes have come, the
    index holds exactly what the source holds, by its own versions."""
    stream = Stream(Random(seed))
    for _ in range(length):
        await stream.step()
    while stream.delivered < len(stream.truth.events):
        await stream.deliver()
    for event in stream.waiting:
        assert await stream._tell(event)
    while stream.planned:
        await stream.mend()
    found = await found_in(stream.engine)
    assert _without_versions(found) == _without_versions(stream.truth.expected())


def _without_versions(found: dict[tuple[str, int], dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {key: {name: value for name, value in one.items() if name != "version"} for key, one in found.items()}
