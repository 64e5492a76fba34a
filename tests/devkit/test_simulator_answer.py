"""How the simulator chooses what it quotes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.devkit.simulator_answer import (
    UNKNOWN,
    Quote,
    as_json,
    as_text,
    quotes,
    sentences,
    stem,
    terms,
    tokens,
    truncate,
    write_answer,
)
from pipeline.devkit.simulator_prompt import Passage, Prompt
from tests.examples import at_most

_RETURNS = Passage(1, "Returns are free of charge. Goods may be returned within 30 days. The office is in Ghent.")
_LOCKERS = Passage(2, "Lockers are green. A locker stays open for two minutes.")


def _answer(question: str, *passages: Passage, limit: int | None = None) -> str:
    return write_answer(Prompt(question, passages), limit=limit, as_object=False)[0]


def test_the_sentence_that_shares_most_words_is_quoted_with_its_number() -> None:
    """The best sentence comes first, and its passage's number follows in brackets."""
    assert _answer("For how many days may goods be returned?", _RETURNS, _LOCKERS) == (
        "Goods may be returned within 30 days. [1]"
    )


def test_the_number_is_the_passages_own() -> None:
    """A citation names the number in the prompt, not the place."""
    found = quotes(Prompt("How long does a locker stay open?", (Passage(7, _LOCKERS.text),)))
    assert found[0] == Quote("A locker stays open for two minutes.", 7)


@pytest.mark.parametrize("passages", [(), (_LOCKERS,)])
def test_without_anything_that_matches_it_does_not_know(passages: tuple[Passage, ...]) -> None:
    """With no passages, or only passages about something else, nothing is made up."""
    assert _answer("Who founded the bakery?", *passages) == UNKNOWN


def test_one_common_word_among_many_is_no_match() -> None:
    """A passage that shares less than a fifth of the question's words is about something else."""
    question = "Which green vegetables grow quickly during rainy Danish summers near beaches?"
    assert _answer(question, _LOCKERS) == UNKNOWN


def test_the_words_around_a_sentence_count() -> None:
    """Of two equal sentences, the one whose passage is about the question wins, wherever it stands."""
    other = Passage(1, "Fruit is sold by weight. It stays for 3 days.")
    meant = Passage(2, "A parcel waits in the tower. It stays for 3 days.")
    assert quotes(Prompt("How many days stays a parcel in the tower?", (other, meant)), most=1)[0].number == 2


def test_sentences_that_do_not_fit_are_left_out() -> None:
    """A second sentence is dropped before the first is cut, and then the answer counts as whole."""
    passage = Passage(1, "Red doors are heavy. Blue doors are heavy too.")
    prompt = Prompt("Which doors are heavy?", (passage,))
    assert write_answer(prompt, limit=None, as_object=False) == (
        "Red doors are heavy. [1] Blue doors are heavy too. [1]",
        False,
    )
    assert write_answer(prompt, limit=7, as_object=False) == ("Red doors are heavy. [1]", False)


def test_a_sentence_that_is_too_long_is_cut() -> None:
    """When the best sentence alone is over the limit, the text ends in it and says so."""
    prompt = Prompt("Which doors are heavy?", (Passage(1, "Red doors are heavy."),))
    assert write_answer(prompt, limit=2, as_object=False) == ("Red door", True)


def test_a_json_answer_names_its_citations() -> None:
    """As an object, the answer has no brackets, and the citations are sorted and single."""
    found = (Quote("B.", 2), Quote("A.", 1), Quote("C.", 2))
    assert json.loads(as_json(found)) == {"answer": "B. A. C.", "citations": [1, 2]}
    assert json.loads(as_json(())) == {"answer": UNKNOWN, "citations": []}
    assert as_text(found) == "B. [2] A. [1] C. [2]"


@pytest.mark.parametrize("word", ["returned", "returning", "returns", "return"])
def test_endings_do_not_matter(word: str) -> None:
    """Forms of a word are one term."""
    assert stem(word) == "return"


def test_stop_words_are_no_terms() -> None:
    """Words that every sentence has carry no weight."""
    assert terms("Where is the LOCKER of these 30 days?") == ["lock", "30", "day"]


def test_sentences_end_at_stops_and_lines() -> None:
    """A decimal point or a time ends no sentence; a line does."""
    assert sentences("It costs 4.20 euros. Come at 16:00!\nTitle\n\nWhy? \n") == [
        "It costs 4.20 euros.",
        "Come at 16:00!",
        "Title",
        "Why?",
    ]


@settings(max_examples=at_most(40))
@given(text=st.text(), limit=st.integers(1, 20))
def test_a_truncated_text_is_within_its_limit(text: str, limit: int) -> None:
    """Truncating keeps a prefix of at most `limit` tokens, all of it when it fits, and tells which."""
    kept, cut = truncate(text, limit)
    assert text.startswith(kept)
    assert tokens(kept) <= limit
    assert cut == (kept != text)


@settings(max_examples=at_most(40))
@given(
    question=st.text(alphabet="abcd .?", max_size=30),
    texts=st.lists(st.text(alphabet="abcd .?!\n", max_size=60), max_size=4),
    limit=st.one_of(st.none(), st.integers(1, 30)),
)
def test_every_answer_is_quoted(question: str, texts: list[str], limit: int | None) -> None:
    """Whatever is asked, the answer is the same each time, within the limit, and made of the passages' sentences."""
    passages = tuple(Passage(number, text) for number, text in enumerate(texts, start=1))
    prompt = Prompt(question, passages)
    text, cut = write_answer(prompt, limit=limit, as_object=False)
    assert (text, cut) == write_answer(prompt, limit=limit, as_object=False)
    assert limit is None or tokens(text) <= limit
    assert all(quote.sentence in passages[quote.number - 1].text for quote in quotes(prompt))
