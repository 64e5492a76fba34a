"""The chunker, the embedder and the index together: what is embedded, and how often."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.clients.embed import EmbeddingLimits, open_embedder
from pipeline.clients.qdrant import open_passages
from pipeline.core.index_ports import Search
from pipeline.core.payloads import Document
from pipeline.devkit.simulator import simulator
from pipeline.stages.chunking import chunk

pytestmark = pytest.mark.local

PARAGRAPHS = [
    f"Locker {n} stands in hall {n % 7}. It has {n + 3} doors. Its keeper is number {n * n}." for n in range(150)
]


def document(version: int) -> Document:
    """Make a version of a long document."""
    body = "\n\n".join(PARAGRAPHS)
    return Document(source="handbook", id="lockers", tenant="t", title="Lockers", body=body, version=version)


async def test_an_edit_embeds_what_it_changed(tmp_path: Path) -> None:
    """Each chunk is embedded once; a changed sentence costs a chunk or two, the same text again nothing."""
    async with (
        simulator() as server,
        open_embedder(server.base_url, "any", "small", EmbeddingLimits(), time.time) as embedder,
        open_passages(tmp_path, None, None, "lockers", time.time, embedder) as index,
    ):
        first = await index.replace(document(1), chunk(document(1).body))
        edited = document(2).model_copy(
            update={"body": document(1).body.replace("Locker 77 stands in", "Locker 77 smells of marzipan in")}
        )
        second = await index.replace(edited, chunk(edited.body))
        again = await index.replace(edited.model_copy(update={"version": 3}), chunk(edited.body))
        found = await index.search(Search("t", "Which one smells of marzipan?", 1, neighbours=1))
        assert server.texts.repeated == ()
        requests = len(server.embeddings.calls)
    assert first.written > 15
    assert 1 <= second.written <= 3
    assert (again.written, again.tokens) == (0, 0)
    # One request each for the length of the model's vectors, the document, the edit and the question.
    assert requests == 4
    assert found[0].text in edited.body
    assert "Locker 77 smells of marzipan in hall 0." in found[0].text


async def test_what_only_moves_is_not_embedded_again(tmp_path: Path) -> None:
    """A paragraph at the start gives nearly all chunks other numbers: they are written, and their vectors are known."""
    async with (
        simulator() as server,
        open_embedder(server.base_url, "any", "small", EmbeddingLimits(), time.time) as embedder,
        open_passages(tmp_path, None, None, "lockers", time.time, embedder) as index,
    ):
        before = chunk(document(1).body)
        await index.replace(document(1), before)
        longer = "\n\n".join([f"Locker {n} came late, and smells of marzipan." for n in range(40)]) + "\n\n"
        edited = document(2).model_copy(update={"body": longer + document(1).body})
        after = chunk(edited.body)
        second = await index.replace(edited, after)
        found = await index.search(Search("t", "Locker 149 stands in hall 2", 3))
        assert server.texts.repeated == ()
    moved = {one.text for one in before} & {one.text for one in after}
    assert len(moved) > 10
    assert second.written > len(moved)
    assert any("Locker 149 stands" in one.text for one in found)
