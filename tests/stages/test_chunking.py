"""Tests of pipeline/stages/chunking.py."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.limits import estimate_tokens
from pipeline.core.passages import body_of
from pipeline.stages.chunking import LEAST_TOKENS, MAX_TOKENS, OVERLAP_TOKENS, OWN_TOKENS, PATH_TOKENS, chunk
from pipeline.stages.normalise import normalise

SENTENCE = "The parcel stays at the desk for seven days, and then it goes back to its sender."
ROWS = [
    "# A",
    "## B b",
    "text.",
    "",
    SENTENCE,
    SENTENCE * 9,
    "x" * 2_000,
    "```",
    "- item",
    "|a|b|",
    "\u6f22\u5b57\u3002" * 150,
]


def texts(body: str) -> list[str]:
    """Return the chunks' texts."""
    return [piece.text for piece in chunk(body)]


def own(body: str) -> list[str]:
    """Return what each chunk has that the one before has not."""
    return [piece.text[piece.overlap :].strip() for piece in chunk(body)]


def solid(text: str) -> str:
    """Return a text without its white space."""
    return "".join(text.split())


def prose(seed: int, paragraphs: int) -> list[str]:
    """Make up paragraphs of one to four sentences."""
    draw = random.Random(seed)
    stems = [
        f"{a}{b}" for a in ("par", "lock", "tow", "cour", "door") for b in ("cel", "er", "ing", "ed", "ful", "less")
    ]

    def sentence() -> str:
        return " ".join(draw.choices(stems, k=draw.randint(6, 22))).capitalize() + "."

    return [" ".join(sentence() for _ in range(draw.randint(1, 4))) for _ in range(paragraphs)]


def test_a_short_text_is_one_chunk() -> None:
    """Paragraphs that fit together stay together; empty lines and blank ends of lines are not kept."""
    assert texts("One.  \n\n\n\nTwo.\n \nThree.\n") == ["One.\n\nTwo.\n\nThree."]


def test_nothing_has_no_chunks() -> None:
    """An empty body, and one of white space alone."""
    assert chunk("") == chunk(" \n\n\t") == ()


def test_cuts_fall_between_paragraphs() -> None:
    """As long as paragraphs fit, none is cut."""
    paragraphs = prose(1, 30)
    cut = own("\n\n".join(paragraphs))
    assert len(cut) > 3
    assert [part for text in cut for part in text.split("\n\n")] == paragraphs


def test_long_paragraphs_are_cut_between_sentences() -> None:
    """Every chunk of a paragraph that is too long begins and ends with a sentence."""
    cut = texts(" ".join([SENTENCE] * 60))
    assert len(cut) > 3
    assert all(text.startswith("The parcel") and text.endswith("sender.") for text in cut)


def test_a_chunk_repeats_the_last_sentences_of_the_one_before() -> None:
    """Whole sentences, as many as are allowed, and exactly as many characters as it says."""
    body = " ".join(f"Number {place} is short." for place in range(200))
    pieces = chunk(body)
    for before, after in pairwise(pieces):
        said = after.text[: after.overlap]
        assert before.text.endswith(said)
        assert said.startswith("Number ")
        assert 0 < estimate_tokens(said) <= OVERLAP_TOKENS
    assert "".join(piece.text[piece.overlap :] for piece in pieces) == body


def test_what_is_too_long_is_not_repeated() -> None:
    """A last sentence beyond the bound, a list and a table are not repeated, not even in part."""
    long = "Word " * 40 + "end."
    assert {piece.overlap for piece in chunk(" ".join([long] * 12))} == {0}
    assert {piece.overlap for piece in chunk("\n".join(["- item of a list"] * 200))} == {0}


def test_sections_are_cut_for_themselves() -> None:
    """A chunk holds text of one section, begins with its heading, and repeats nothing of another section."""
    cut = chunk("# Guide\n\nLead.\n\n## Setup\n\nFirst. Second.\n\n## Use\n\nThird.")
    assert [piece.text for piece in cut] == [
        "# Guide\n\nLead.",
        "Guide\n\n## Setup\n\nFirst. Second.",
        "Guide\n\n## Use\n\nThird.",
    ]
    assert [piece.overlap for piece in cut] == [0, len("Guide"), len("Guide")]


def test_every_chunk_of_a_section_says_where_it_is() -> None:
    """The path of headings stands in front of a section's later chunks, and is part of what they repeat."""
    body = "# Guide\n\n## Setup\n\n" + "\n\n".join(prose(2, 20))
    first, *rest = chunk(body)
    assert first.text.startswith("# Guide\n\n## Setup\n\n")
    assert rest
    assert all(piece.text.startswith("Guide > Setup\n\n") for piece in rest)
    assert "".join(piece.text[piece.overlap :] for piece in (first, *rest)) == body


def test_a_path_is_bounded() -> None:
    """Long headings are shortened, and the highest of many are left out."""
    heads = "\n\n".join(f"{'#' * level} {'Level ' * 15}{level}" for level in range(1, 7))
    *_, last = chunk(f"{heads}\n\n{' '.join([SENTENCE] * 40)}")
    path = last.text.split("\n", 1)[0]
    assert path.endswith("\u2026")
    assert estimate_tokens(path) <= PATH_TOKENS


@pytest.mark.parametrize(
    "block",
    [
        "| part | price |\n|---|---|\n" + "\n".join(f"| bolt {place} | {place}.50 |" for place in range(25)),
        "\n".join(f"{place}. Turn the key. Then wait." for place in range(1, 20)),
        "```\n" + "\n\n".join(f"step({place}) # first. Then" for place in range(20)) + "\n```",
    ],
)
def test_what_belongs_together_stays_together(block: str) -> None:
    """A table, a list and a block of code that fit into a chunk are never cut, wherever they stand."""
    for lead in range(0, 12, 3):
        body = "\n\n".join([*prose(3, lead), "As follows:", block, *prose(4, 8)])
        (holder,) = (text for text in texts(body) if block[:20] in text)
        assert f"As follows:\n\n{block}" in holder


def test_large_tables_are_cut_between_lines() -> None:
    """What does not fit is cut where it hurts least."""
    rows = [f"| bolt {place} | made of steel, {place} mm long |" for place in range(100)]
    cut = own("\n".join(rows))
    assert len(cut) > 3
    assert [line for text in cut for line in text.split("\n")] == rows


def test_the_head_of_a_table_stands_over_all_its_chunks() -> None:
    """The names of its columns are repeated below the headings, so that rows further down say what they are."""
    rows = [f"| bolt {place} | {place} mm long |" for place in range(150)]
    head = "| part | size |\n|---|---|"
    body = "# Bolts\n\n" + head + "\n" + "\n".join(rows)
    pieces = chunk(body)
    assert len(pieces) > 3
    assert all(piece.text.startswith(f"Bolts\n\n{head}\n| bolt") for piece in pieces[1:])
    assert "".join(piece.text[piece.overlap :] for piece in pieces) == body
    assert {piece.overlap for piece in chunk("\n".join(rows))} == {0}
    assert {piece.overlap for piece in chunk("\n".join(["|" + "long name " * 20 + "|", "|---|", *rows]))} == {0}


def test_text_without_ends_is_cut_between_words_and_then_within() -> None:
    """Text without punctuation, a base64 blob and a script without spaces are bounded, too."""
    spoken = [f"word{number}" for number in range(1_000)]
    assert " ".join(texts(" ".join(spoken))).split() == spoken
    for text in texts("x" * 5_000 + "\u6f22" * 1_000 + "\u3002" + "\u5b57" * 10):
        assert estimate_tokens(text) <= MAX_TOKENS


def test_chunks_are_neither_tiny_nor_huge() -> None:
    """Of ordinary prose every chunk but the last has from 100 to 300 tokens of its own, and the last is not tiny."""
    sizes = [estimate_tokens(text) for text in own("\n\n".join(prose(5, 60)))]
    assert all(LEAST_TOKENS - 1 <= size <= OWN_TOKENS for size in sizes[:-1])
    assert sizes[-1] >= LEAST_TOKENS // 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("where", [0, 120, 239])
@pytest.mark.parametrize("joint", [" ", "\n\n"])
def test_a_change_leaves_other_chunks_alone(seed: int, where: int, joint: str) -> None:
    """One sentence more, at the start, in the middle or at the end of a long text, changes at most five chunks."""
    paragraphs = prose(seed, 240)
    before = set(texts(joint.join(paragraphs)))
    after = texts(joint.join([*paragraphs[:where], "This sentence is new here.", *paragraphs[where:]]))
    assert len(before) > 60
    assert 0 < len([text for text in after if text not in before]) <= 5


def test_a_change_stays_in_its_section() -> None:
    """Cuts begin anew at each heading, so that a section does not depend on those before it."""
    parts = [f"# Part {place}\n\n" + "\n\n".join(prose(place, 9)) for place in range(9)]
    before = texts("\n\n".join(parts))
    after = texts("\n\n".join([parts[0] + " New at the end.", *parts[1:]]))
    assert [text for text in before if "Part 0" not in text] == [text for text in after if "Part 0" not in text]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(ROWS), max_size=25), st.sampled_from(["\n", "\n\n", " "]))
def test_nothing_is_lost_and_everything_is_bounded(rows: list[str], joint: str) -> None:
    """What chunks do not repeat is the whole body in its order; they are bounded, numbered from 0, and not empty."""
    body = joint.join(rows)
    cut = chunk(body)
    assert solid("".join(own(body))) == solid(body)
    assert [piece.number for piece in cut] == list(range(len(cut)))
    assert all(0 < estimate_tokens(piece.text) <= MAX_TOKENS for piece in cut)
    assert all(piece.overlap < len(piece.text) for piece in cut)
    assert cut == chunk(body)


@settings(max_examples=40)
@given(st.text("ab.# \n\t\u00e4\u6f22\u3002!?|-`1", max_size=2_000))
def test_any_text_is_cut(body: str) -> None:
    """No text breaks it, and all but white space survives in order."""
    assert solid("".join(own(body))) == solid(body)
    assert all(0 < estimate_tokens(text) <= MAX_TOKENS for text in texts(body))


@pytest.mark.parametrize("junk", ["x", "a ", "~~~\n", "- a\n\n", "# a\n", " ", "`" * 15 + "\n", "A.\n===\n"])
def test_long_junk_is_no_trap(junk: str) -> None:
    """Bodies without any structure, or with too much of it, take time in proportion to their length."""
    body = junk * (10_000 // len(junk))
    assert solid("".join(own(body))) == solid(body)


STRANGE = ["    code", "Title\n---", " \n\n\n", "\x0b", "\x1c", "\x85x", "as follows:", "text. " * 90]


@settings(max_examples=100)
@given(st.lists(st.one_of(st.sampled_from([*ROWS, *STRANGE]), st.text(max_size=30)), max_size=30).map("\n".join))
def test_the_chunks_give_the_body_back(body: str) -> None:
    """Put together again they are a body of which the same chunks are cut, and which stays as it is from then on."""
    pieces = chunk(normalise(body))
    whole = body_of(pieces)
    assert chunk(normalise(whole)) == pieces
    assert body_of(chunk(whole)) == whole == normalise(whole)
