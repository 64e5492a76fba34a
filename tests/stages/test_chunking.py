"""Tests of pipeline/stages/chunking.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.limits import estimate_tokens
from pipeline.stages.chunking import MAX_TOKENS, TARGET_TOKENS, chunk

SENTENCE = "The parcel stays at the desk for seven days, and then it goes back to its sender."


def texts(body: str) -> list[str]:
    """Return the chunks' texts."""
    return [piece.text for piece in chunk(body)]


def solid(text: str) -> str:
    """Return a text without its white space."""
    return "".join(text.split())


def test_a_short_text_is_one_chunk() -> None:
    """Paragraphs that fit together stay together, with one empty line between them."""
    assert texts("One.\n\n\n  Two.\n \nThree.\n") == ["One.\n\nTwo.\n\nThree."]


def test_nothing_has_no_chunks() -> None:
    """An empty body, and one of white space alone."""
    assert chunk("") == chunk(" \n\n\t") == ()


def test_cuts_fall_between_paragraphs() -> None:
    """As long as paragraphs fit, none is cut."""
    paragraphs = [" ".join([f"{number}: {SENTENCE}"] * 4) for number in range(12)]
    cut = texts("\n\n".join(paragraphs))
    assert len(cut) > 3
    assert [part for text in cut for part in text.split("\n\n")] == paragraphs


def test_long_paragraphs_are_cut_between_sentences() -> None:
    """Every chunk of a paragraph that is too long begins and ends with a sentence."""
    cut = texts(" ".join([SENTENCE] * 60))
    assert len(cut) > 3
    assert all(text.startswith("The parcel") and text.endswith("sender.") for text in cut)


def test_a_sentence_without_end_is_cut_between_words() -> None:
    """Text without punctuation is cut at white space."""
    words = [f"word{number}" for number in range(1_000)]
    assert " ".join(texts(" ".join(words))).split() == words


def test_a_word_without_end_is_cut() -> None:
    """A base64 blob or a script without spaces is bounded, too."""
    cut = texts("x" * 5_000 + "\u6f22" * 1_000 + "\u3002" + "\u5b57" * 10)
    assert all(estimate_tokens(text) <= MAX_TOKENS for text in cut)


def test_chunks_are_neither_tiny_nor_huge() -> None:
    """Of ordinary prose every chunk but the last is near the target."""
    cut = texts("\n\n".join([" ".join([SENTENCE] * 2)] * 40))
    assert all(TARGET_TOKENS <= estimate_tokens(text) <= MAX_TOKENS for text in cut[:-1])


@given(st.text("ab. \n\t\u00e4\u6f22\u3002!?", max_size=3_000))
def test_nothing_is_lost_and_everything_is_bounded(body: str) -> None:
    """All but white space survives in order; chunks are bounded, numbered from 0, and not empty."""
    cut = chunk(body)
    assert solid("".join(piece.text for piece in cut)) == solid(body)
    assert [piece.number for piece in cut] == list(range(len(cut)))
    assert all(0 < estimate_tokens(piece.text) <= MAX_TOKENS for piece in cut)


@given(st.lists(st.sampled_from([SENTENCE, SENTENCE * 9, "x" * 2_000, "Short.", "\n\n", " "]), max_size=12))
def test_the_same_body_gives_the_same_chunks(parts: list[str]) -> None:
    """Chunking is deterministic and keeps what it has cut once."""
    body = "\n".join(parts)
    assert chunk(body) == chunk(body)
    assert all(texts(text) == [text] for text in texts(body) if "\n" not in text)
