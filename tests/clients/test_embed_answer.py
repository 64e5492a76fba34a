"""Tests of pipeline/clients/embed_answer.py."""

from __future__ import annotations

import base64
import json
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clients import embed_answer
from pipeline.clients.embed_answer import BadAnswer, read_vectors


def item(index: Any, embedding: Any) -> dict[str, Any]:
    """Spell one vector as OpenAI does."""
    return {"object": "embedding", "index": index, "embedding": embedding}


def body(*items: Any, **more: Any) -> bytes:
    """Spell an answer as OpenAI does."""
    return json.dumps({"object": "list", "data": items, "usage": {"prompt_tokens": 7}} | more).encode()


def encoded(*numbers: float) -> str:
    """Spell numbers as base64."""
    return base64.b64encode(pack(f"<{len(numbers)}f", *numbers)).decode()


def test_vectors_come_in_the_order_of_the_texts() -> None:
    """The index says which text a vector is of, wherever it stands."""
    read = read_vectors(body(item(1, [0, 1]), item(0, [1.0, 0])), 2)
    assert ([list(vector) for vector in read.vectors], read.tokens) == ([[1.0, 0], [0, 1]], 7)


def test_without_any_index_the_order_is_believed() -> None:
    """Some servers leave the index out."""
    assert list(read_vectors(body({"embedding": [1]}, {"embedding": [2]}), 2).vectors) == [[1], [2]]


def test_base64_is_read() -> None:
    """Little-endian 32-bit floats, as vectors come where that was asked for."""
    (vector,) = read_vectors(body(item(0, encoded(0.5, -0.25))), 1).vectors
    assert list(vector) == [0.5, -0.25]


@pytest.mark.parametrize(
    "usage",
    [None, {}, [], {"prompt_tokens": "9"}, {"prompt_tokens": -1}, {"prompt_tokens": 0}, {"total_tokens": 2**40}],
)
def test_usage_that_says_nothing_is_no_usage(usage: Any) -> None:
    """A missing, huge or senseless count is not worth a second request."""
    assert read_vectors(body(item(0, [1.0]), usage=usage), 1).tokens is None


def test_the_total_will_do() -> None:
    """Of an embedding there is no output, so the total is the input."""
    assert read_vectors(body(item(0, [1.0]), usage={"total_tokens": 5}), 1).tokens == 5


@pytest.mark.parametrize(
    "raw,problem",
    [
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"[]", "no list of vectors"),
        (b"{}", "no list of vectors"),
        (body(), "0 vectors for 1 texts"),
        (body(item(0, [1.0]), item(1, [1.0])), "2 vectors for 1 texts"),
        (body(item(1, [1.0])), "indexes"),
        (body(item("0", [1.0])), "indexes"),
        (body(item(True, [1.0])), "indexes"),
        (body("text"), "vector 0 is no list of numbers"),
        (body(item(0, None)), "vector 0 is no list of numbers"),
        (body(item(0, {"a": 1})), "vector 0 is no list of numbers"),
        (body(item(0, [1.0, None])), "vector 0 is no list of numbers"),
        (body(item(0, [True])), "vector 0 is no list of numbers"),
        (body(item(0, ["1.0"])), "vector 0 is no list of numbers"),
        (body(item(0, [])), "vector 0 is empty"),
        (body(item(0, "")), "vector 0 is empty"),
        (body(item(0, "###")), "not base64"),
        (body(item(0, "AAA=")), "2 bytes"),
        (body(item(0, [float("nan"), 1.0])), "not finite"),
        (body(item(0, [float("-inf"), 1.0])), "not finite"),
        (body(item(0, [1e300])), "not finite"),
        (body(item(0, [10**400])), "not finite"),
        (body(item(0, encoded(float("nan")))), "not finite"),
        (body(item(0, [0.0, 0])), "no direction"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, problem: str) -> None:
    """Too few, too many, misplaced, empty, not finite or not even vectors: each has its sentence."""
    with pytest.raises(BadAnswer, match=problem):
        read_vectors(raw, 1)


def test_vectors_of_one_answer_are_of_one_length() -> None:
    """An index has one dimension."""
    with pytest.raises(BadAnswer, match="from 1 to 2"):
        read_vectors(body(item(0, [1.0]), item(1, [1.0, 2.0])), 2)


def test_an_index_that_comes_twice_is_refused() -> None:
    """Nobody can tell which text two vectors of one index are of."""
    with pytest.raises(BadAnswer, match="each once"):
        read_vectors(body(item(0, [1.0]), item(0, [1.0])), 2)


def test_a_huge_answer_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading takes many times the memory of the answer."""
    monkeypatch.setattr(embed_answer, "MOST_BYTES", 10)
    with pytest.raises(BadAnswer, match="bytes"):
        read_vectors(body(item(0, [1.0])), 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "index", "embedding"]), inner),
    max_leaves=8,
)


@settings(max_examples=30)
@given(JSON | st.lists(st.fixed_dictionaries({"index": st.integers(0, 2), "embedding": JSON}), max_size=3))
def test_any_json_is_vectors_or_a_bad_answer(data: Any) -> None:
    """No answer raises anything else, and what is returned is fit for the index."""
    try:
        read = read_vectors(json.dumps({"data": data, "usage": data}).encode(), 2)
    except BadAnswer:
        return
    assert len({len(vector) for vector in read.vectors}) == 1
    assert all(abs(number) < 1e39 for vector in read.vectors for number in vector)
