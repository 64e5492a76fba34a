"""Tests of pipeline/clients/passage_store.py and passage_collection.py: what is embedded, by what, and what is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import PROBE, Collection
from pipeline.clients.passage_marks import content_of
from pipeline.clients.passage_store import FORGET_SECONDS, MARK_SECONDS, PassageKeeper
from pipeline.core.errors import Halt, Reject, Retry
from pipeline.core.index_ports import Indexed
from tests.clients.passage_world import NAME, Engine, Letters, here, keeper_on, place_on, vector_of
from tests.contracts.passage_index_contract import CLOSING, OPENING, RETURNS, chunks, document

pytestmark = pytest.mark.local


async def _dense(engine: Engine) -> dict[int, list[float]]:
    found, _ = await engine.inner.scroll(NAME, points.of_kind(points.OF_CHUNK), limit=100, with_vectors=True)
    vectors: dict[int, Any] = {(one.payload or {})["chunk"]: one.vector for one in found}
    return {chunk: vector["dense"] for chunk, vector in vectors.items()}


def _unit(text: str) -> list[float]:
    vector = vector_of(text)
    return [number / math.hypot(*vector) for number in vector]


async def test_each_chunk_is_embedded_once_under_its_title() -> None:
    """A dense vector beside the sparse one; what is unchanged is not embedded again, nor is a change of fields."""
    engine, letters = Engine(), Letters()
    keeper = keeper_on(engine, letters)
    done = await keeper.replace(document(1), chunks(OPENING, RETURNS))
    assert done == Indexed(written=2, tokens=sum(len(f"Hours\n{text}") for text in (OPENING, RETURNS)))
    assert letters.texts == [PROBE, f"Hours\n{OPENING}", f"Hours\n{RETURNS}"]
    letters.texts.clear()
    assert await keeper.replace(document(2), chunks(OPENING, CLOSING)) == Indexed(
        written=1, kept=1, tokens=len(f"Hours\n{CLOSING}")
    )
    assert await keeper.replace(
        document(3, fields={"lang": "en"}, tenant="rival"), chunks(OPENING, CLOSING)
    ) == Indexed(kept=2)
    assert letters.texts == [f"Hours\n{CLOSING}"]
    vectors = await _dense(engine)
    assert vectors[0] == pytest.approx(_unit(f"Hours\n{OPENING}"))
    assert vectors[1] == pytest.approx(_unit(f"Hours\n{CLOSING}"))


async def test_equal_texts_of_a_document_are_embedded_once() -> None:
    """A text that is repeated has one vector."""
    letters = Letters()
    await keeper_on(Engine(), letters).replace(document(1), chunks(OPENING, OPENING))
    assert letters.texts == [PROBE, f"Hours\n{OPENING}"]


async def test_a_kept_body_is_embedded_under_its_new_title() -> None:
    """The stored texts are embedded anew where the title is part of what is embedded."""
    engine, letters = Engine(), Letters()
    keeper = keeper_on(engine, letters)
    await keeper.replace(document(1), chunks(OPENING))
    letters.texts.clear()
    assert await keeper.keep(document(2, fields={"lang": "en"})) == Indexed(kept=1)
    assert letters.texts == []
    await keeper.keep(document(3, title="Doors"))
    assert letters.texts == [f"Doors\n{OPENING}"]
    assert (await _dense(engine))[0] == pytest.approx(_unit(f"Doors\n{OPENING}"))


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [[1.0, 2.0]],
        [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]],
        [[1.0, 2.0], [1.0]],
        [[1.0, 2.0], [1.0, 2.0, 3.0]],
        [[1.0, 2.0], [math.nan, 1.0]],
        [[math.inf, 2.0], [1.0, 2.0]],
    ],
)
async def test_what_is_no_answer_never_reaches_the_index(answer: Sequence[Sequence[float]]) -> None:
    """Too few or too many vectors, a wrong length, NaN: an attempt is lost and nothing is written."""
    engine, letters = Engine(), Letters()
    keeper = keeper_on(engine, letters)
    await keeper.remove(document(1, name="other"))
    before = len(engine.writes)
    letters.answers.append(answer)
    with pytest.raises(Retry, match="embedding model gave"):
        await keeper.replace(document(1), chunks(OPENING, RETURNS))
    assert len(engine.writes) == before
    assert (await keeper.replace(document(1), chunks(OPENING, RETURNS))).written == 2


async def test_a_probe_without_an_answer_is_tried_again() -> None:
    """How long vectors are is found out at the first call that is answered."""
    letters = Letters()
    letters.answers += [[], [[]]]
    keeper = keeper_on(Engine(), letters)
    for _ in range(2):
        with pytest.raises(Retry, match="no vector"):
            await keeper.remove(document())
    assert (await keeper.replace(document(), chunks(OPENING))).written == 1


class Longer(Letters):
    """The same name, with vectors of three numbers."""

    async def embed(self, texts: Sequence[str]) -> Any:
        self.answers.append([[1.0, 2.0, 3.0]] * len(texts))
        return await super().embed(texts)


@pytest.mark.parametrize(
    "first,second,says",
    [
        (Letters("old"), Letters("new"), "'old' (2 dimensions).*'new' (2 dimensions)"),
        (Letters(), Longer(), "'letters' (2 dimensions).*'letters' (3 dimensions)"),
        (None, Letters(), "without an embedding model.*'letters' (2 dimensions)"),
        (Letters(), None, "'letters' (2 dimensions).*without an embedding model"),
    ],
)
async def test_a_collection_made_by_another_model_is_refused(
    first: Letters | None, second: Letters | None, says: str
) -> None:
    """The sentence names both models, and the cure; nothing is read or written, and the first goes on."""
    engine = Engine()
    await keeper_on(engine, first).replace(document(1), chunks(OPENING))
    refused, before = keeper_on(engine, second), len(engine.writes)
    for said in (says.replace("(", r"\(").replace(")", r"\)"), "EMBEDDING_MODEL.*pipeline index rebuild"):
        with pytest.raises(Halt, match=said):
            await refused.replace(document(2), chunks(RETURNS))
    assert len(engine.writes) == before
    assert (await keeper_on(engine, first).replace(document(1), chunks(OPENING))).kept == 1


async def test_a_collection_that_does_not_say_what_it_is_is_refused() -> None:
    """One of an older release has no marks: late events would go unnoticed in it."""
    engine = Engine()
    sparse = {points.VECTOR: models.SparseVectorParams()}
    await engine.inner.create_collection(NAME, vectors_config={}, sparse_vectors_config=sparse)
    with pytest.raises(Halt, match="pipeline index rebuild"):
        await keeper_on(engine).remove(document())


# ---- marks -----------------------------------------------------------------------------------------------------------
async def test_marks_of_removed_documents_are_forgotten() -> None:
    """After their time they go, and with them goes what they guarded against; those of others stay."""
    engine = Engine()
    await keeper_on(engine, now=100.0).remove(document(5, name="early"))
    keeper = keeper_on(engine, now=200.0)
    await keeper.remove(document(5, name="late"))
    await keeper.replace(document(5), chunks(OPENING))
    assert await keeper.forget(150_000) == 1
    assert await keeper.forget(150_000) == 0
    assert not (await keeper.replace(document(4, name="early"), chunks(OPENING))).stale
    assert (await keeper.replace(document(4, name="late"), chunks(OPENING))).stale
    assert (await keeper.replace(document(4), chunks(OPENING))).stale


async def test_marks_are_forgotten_while_the_index_is_written() -> None:
    """After 90 days, by the first removal of a process, and by any write an hour after the last look."""
    engine, now = Engine(), [1_000.0]
    client: Any = engine
    place = Collection(client, NAME, here, lambda: now[0], None, indexed=False)
    keeper = PassageKeeper(place, points.Embedder())
    for name in ("one", "two"):
        await keeper.remove(document(5, name=name))
        now[0] += 2 * FORGET_SECONDS
    now[0] = 1_000.0 + MARK_SECONDS
    await keeper.replace(document(1), chunks(OPENING))
    assert await _marked(engine) == {"one", "two", "shop"}
    now[0] += 1.0 + FORGET_SECONDS
    await keeper.replace(document(1), chunks(OPENING))
    assert await _marked(engine) == {"one", "two", "shop"}
    await keeper.replace(document(2), chunks(OPENING))
    assert await _marked(engine) == {"two", "shop"}
    now[0] += 2 * FORGET_SECONDS
    other = PassageKeeper(place, points.Embedder())
    await other.replace(document(3), chunks(OPENING))
    assert await _marked(engine) == {"two", "shop"}
    await PassageKeeper(place, points.Embedder()).remove(document(4))
    assert await _marked(engine) == {"shop"}


async def _marked(engine: Engine) -> set[str]:
    return {str((one.payload or {})[points.DOCUMENT]) for one in await _marks(engine)}


async def test_the_text_of_a_removed_document_is_withheld_for_an_hour() -> None:
    """Then it is gone for good, as soon as something is removed; the mark stays."""
    engine = Engine()
    first = keeper_on(engine, now=10_000.0)
    await first.replace(document(1, name="old"), chunks(OPENING))
    await first.remove(document(2, name="old"))
    assert "shop opens" in str(await _marks(engine))
    await keeper_on(engine, now=13_601.0).remove(document(2, name="other"))
    marks = await _marks(engine)
    assert "shop opens" not in str(marks)
    assert len(marks) == 2
    assert await keeper_on(engine).keep(document(2, name="new", former="old")) is None


async def _marks(engine: Engine) -> list[models.Record]:
    found, _ = await engine.inner.scroll(NAME, points.of_kind(points.OF_DOCUMENT), limit=100)
    return found


async def test_versions_are_compared_exactly() -> None:
    """Also beyond 2^53, where floats no longer tell neighbours apart; only a source cannot be emptied there."""
    keeper, huge = keeper_on(Engine()), 2**62
    await keeper.replace(document(huge + 1), chunks(OPENING))
    assert (await keeper.replace(document(huge), chunks(RETURNS))).stale
    assert not (await keeper.replace(document(huge + 2), chunks(RETURNS))).stale
    assert (await keeper.remove(document(huge + 1))).stale
    with pytest.raises(Reject, match="2\\^53"):
        await keeper.empty("handbook", huge)


async def test_a_large_document_grows_and_shrinks() -> None:
    """More chunks than a request holds are written, raised and removed all the same."""
    engine, many = Engine(), [f"{OPENING} {n}" for n in range(300)]
    keeper = keeper_on(engine)
    assert await keeper.replace(document(1), chunks(*many)) == Indexed(written=300)
    made = [one.upsert for one in engine.writes if isinstance(one, models.UpsertOperation)]
    assert max(len(one.points) for one in made if isinstance(one, models.PointsList)) <= 256
    assert await keeper.replace(document(2), chunks(*many[:299])) == Indexed(kept=299, removed=1)
    assert await keeper.replace(document(3), chunks(many[0])) == Indexed(kept=1, removed=298)


async def test_a_repeat_asks_once_and_writes_nothing() -> None:
    """One reading request tells that all is there."""
    engine = Engine()
    keeper = keeper_on(engine)
    await keeper.replace(document(1, fields={"lang": "en"}), chunks(OPENING, RETURNS))
    reads, writes = engine.reads, len(engine.writes)
    await keeper.replace(document(1, fields={"lang": "en"}), chunks(OPENING, RETURNS))
    assert (engine.reads, len(engine.writes)) == (reads + 1, writes)


async def test_fields_are_filterable_payload() -> None:
    """They stand in the payload under `fields`, and a field that is no more is gone."""
    engine = Engine()
    keeper = keeper_on(engine)
    await keeper.replace(document(1, fields={"lang": "en", "old": "x"}), chunks(OPENING))
    await keeper.replace(document(2, fields={"lang": "de"}), chunks(OPENING))
    english, german, old = [
        await engine.inner.count(
            NAME, models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=v))])
        )
        for key, v in (("fields.lang", "en"), ("fields.lang", "de"), ("fields.old", "x"))
    ]
    assert (english.count, german.count, old.count) == (0, 2, 0)  # the chunk, and the mark


async def test_the_content_hash_of_a_mark_can_be_made_without_the_index() -> None:
    """An audit compares it with what the source would come to."""
    engine = Engine()
    await keeper_on(engine).replace(document(1), chunks(OPENING, RETURNS))
    payload = (await _marks(engine))[0].payload or {}
    assert payload["content"] == content_of("Hours", [OPENING, RETURNS], place_on(engine).embedded_by)
