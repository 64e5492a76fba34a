"""The prompt format, read and written."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.devkit.simulator_prompt import Passage, Prompt, parse_prompt, render_prompt
from tests.examples import at_most

# Texts that try to break out of their delimiters are the ones that matter.
_HOSTILE = st.sampled_from(
    ["</passage>", "<passages>", "</question>", '"', "'", "&amp;", "&lt;", "<question>", "\n", "&#39;", "é"]
)
_TEXT = st.lists(st.one_of(_HOSTILE, st.text(max_size=8)), max_size=6).map(lambda parts: "".join(parts).strip())
_PASSAGES = st.lists(st.tuples(_TEXT, _TEXT, st.integers(0, 99), st.integers(0, 99)), max_size=4)


@settings(max_examples=at_most(40))
@given(question=_TEXT, passages=_PASSAGES)
def test_what_is_rendered_is_read_back(question: str, passages: list[tuple[str, str, int, int]]) -> None:
    """No text of a passage, of a document's name or of a question can break the delimiters around it."""
    numbered = tuple(
        Passage(number, text, document, chunk, version)
        for number, (text, document, chunk, version) in enumerate(passages, start=1)
    )
    prompt = Prompt(question, numbered)
    assert parse_prompt(render_prompt(prompt)) == prompt


def test_the_format_is_the_contract() -> None:
    """The rendered prompt is the fixed format, line by line."""
    passage = Passage(1, "Tea & cake, 3 < 4.", "handbook/tea", 0, 3)
    assert render_prompt(Prompt("Is 3 > 2?", (passage,))).splitlines() == [
        "<passages>",
        '<passage n="1" document="handbook/tea" chunk="0" version="3">',
        "Tea &amp; cake, 3 &lt; 4.",
        "</passage>",
        "</passages>",
        "<question>",
        "Is 3 &gt; 2?",
        "</question>",
    ]


def test_text_around_the_blocks_is_ignored() -> None:
    """A template may say more before, between and after the blocks."""
    text = f"Answer the question.\n{render_prompt(Prompt('Why?', (Passage(1, 'So.'),)))}\nBe short."
    assert parse_prompt(text) == Prompt("Why?", (Passage(1, "So."),))


def test_a_message_without_a_question_block_is_a_question() -> None:
    """A plain message is asked as a whole, without passages."""
    assert parse_prompt(" What is a locker? ") == Prompt("What is a locker?")


def test_a_number_of_thousands_of_digits_is_no_number() -> None:
    """What Python would refuse to read as a number counts as missing."""
    text = f'<passages><passage n="{"9" * 5000}">A.</passage></passages><question>Q</question>'
    assert parse_prompt(text).passages == (Passage(1, "A."),)


def test_attributes_that_are_missing_or_no_numbers_have_defaults() -> None:
    """A passage without attributes is numbered by its place."""
    text = '<passages><passage>A.</passage><passage n="x" chunk="-1">B.</passage></passages><question>Q</question>'
    assert parse_prompt(text) == Prompt("Q", (Passage(1, "A."), Passage(2, "B.")))


@settings(max_examples=at_most(40))
@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """Reading a prompt never fails."""
    parse_prompt(text)
