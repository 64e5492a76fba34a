"""Tests of pipeline/clients/passage_marks.py and passage_points.py: what is decided, and what is read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_marks import Change, Hashes, Held, Mark, State, Step, decide, digest
from pipeline.core.errors import Retry
from tests.clients.passage_world import NAME, SOURCE, Engine, keeper_on
from tests.contracts.passage_index_contract import OPENING, RETURNS, chunks, document

pytestmark = pytest.mark.local


def _decided(state: State, change: Change) -> Step:
    return decide(state, change, Hashes("words"), 1_000)


def _done(version: int, *texts: str) -> tuple[Mark, State]:
    """Carry out a change on nothing: the mark, and all that is then held."""
    step = _decided(State(), Change("replace", document(version), texts))
    assert step.mark is not None
    mark = step.mark
    held = {n: Held(n, step.hashes[n], mark.stamp, mark.body, mark.age, text) for n, text in enumerate(texts)}
    return mark, State(mark=mark, held=held)


def test_what_is_there_needs_nothing() -> None:
    """A repeat of the newest state is idle, whatever else its mark says of how it came about."""
    mark, state = _done(3, "one", "two")
    again = replace(state, mark=replace(mark, high=9, removed_ms=5))
    step = _decided(again, Change("replace", document(3), ["one", "two"]))
    assert step.idle
    assert list(step.kept) == [0, 1]


def test_a_mark_knows_how_many_chunks_there_may_be() -> None:
    """The count of the state before is taken over until it is read that its chunks are gone."""
    mark, state = _done(3, "one", "two", "three")
    less = _decided(state, Change("replace", document(4), ["one"])).mark
    assert less is not None
    assert (less.chunks, less.high) == (1, 3)
    gone = replace(state, mark=less, held={0: state.held[0]})
    assert (_decided(gone, Change("replace", document(5), ["one"])).mark or mark).high == 1


def test_a_newer_chunk_is_left_to_its_own_call() -> None:
    """Its mark is on its way; who is older neither writes nor removes it."""
    _, newer = _done(9, "new", "newer")
    step = _decided(State(held=newer.held), Change("replace", document(3), ["one"]))
    assert step.new_mark
    assert [*step.write, *step.surplus, *step.raised] == []


def test_a_late_call_removes_what_older_states_left() -> None:
    """It may be its own, written before it was stopped; what belongs to the newest state stays."""
    mark, state = _done(9, "one", "two")
    left = Held(2, "h", "older", "b", (3, 3))
    step = _decided(replace(state, held={**state.held, 2: left}), Change("replace", document(3), ["a", "b", "c"]))
    assert step.stale
    assert step.surplus == {"older": [2]}
    assert mark == step.mark
    assert not step.new_mark


@pytest.mark.parametrize("told", [["a", "bc"], ["ab", "c"], [["a"], "bc"], []])
def test_digests_tell_parts_apart(told: Sequence[Any]) -> None:
    """The same letters in other parts are something else."""
    assert digest(*told) != digest("abc")
    assert digest(*told) == digest(*told)


async def test_a_foreign_mark_is_named() -> None:
    """A point that somebody else wrote in a mark's place is an error of the index, not a crash."""
    engine = Engine()
    keeper = keeper_on(engine)
    await keeper.replace(document(), chunks(OPENING))
    strange = models.PointStruct(id=points.mark_id(SOURCE, "shop"), vector={}, payload={"source": "x"})
    await engine.inner.upsert(NAME, [strange])
    with pytest.raises(Retry, match="the mark of a document has no"):
        await keeper.replace(document(2), chunks(RETURNS))


async def test_a_call_does_not_write_for_ever() -> None:
    """Where nothing that is written stays, the call gives way after some rounds."""

    class Forgetful(Engine):
        async def upsert(self, *_: Any, **__: Any) -> None:
            """Do nothing."""

    engine = Forgetful()
    with pytest.raises(Retry, match="too many workers"):
        await keeper_on(engine).replace(document(), chunks(OPENING))
    with pytest.raises(Retry, match="too many workers"):
        await keeper_on(engine).empty(SOURCE, 3)
    assert engine.reads == 24
    keeper = keeper_on(engine)
    with pytest.raises(ValueError, match="numbered from 0"):
        await keeper.replace(document(), chunks(OPENING, RETURNS)[1:])
