"""What the chunker made of texts of all kinds, recorded: a change of it makes every index out there write itself anew.

Where a change is meant, `python -m tests.stages.test_chunks_recorded` records what it makes now.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from pipeline.stages.chunking import chunk

DATA = Path(__file__).parents[1] / "data"
RECORDED = DATA / "chunks" / "digests.json"
LENGTH = 3_000

REPEATED = (
    *(
        "a\n",
        "a ",
        "a\n\n",
        "a",
        "\u00e4",
        "# a\n",
        "# a\n\n",
        "# a\nb\n",
        "a\n=\n\n",
        "a\n---\nb\n\n",
        "-",
        "-\n",
        "|",
        "|\n",
        "#",
    ),
    *(
        "1.1 Aa\n\nb\n\n",
        "1.1.1.1.1 Aa\n\n",
        "ABCD\n\n",
        "ABCD\n\nxy\n\n",
        ".",
        ". ",
        "a. ",
        "Aa! ",
        "xx. X",
        ", ; ",
        "?!. \u2026 ",
    ),
    *(
        "\u6f22",
        "\u6f22\u3002",
        "\u3002",
        "\u6f22\n",
        "- a\n",
        "- a\n\n",
        "- a\n\n  b\n\n",
        "|a|\n",
        "|a|\n|-|\n|b|\n\n",
        "```\n",
        "```x\n",
    ),
    *(
        "```\n~~~\n````x\n~~~~x\n",
        "\u00e4\n",
        "\u00e4 a ",
        "\U0001f600 ",
        "e.g. Dr. z.B. Xx ",
        "a.b.c.d.e.f. X ",
        '."\'") ',
        "\t\ta\n\n",
    ),
    *(
        "a:\n\n",
        "abcdef gh\n",
        "word " * 400 + "\n",
        "\u00a0a\u3000",
        ">" * 50 + " a\n",
        "## " + "Word " * 20 + "\nx\n",
        "a\r\n",
        "a\x0b\x0c\x85\u2028",
    ),
    "".join("#" * level + " t\n" for level in range(1, 7)),
    "".join(" " * depth + "- a\n" for depth in range(60)),
    "".join("`" * (3 + length % 14) + "x\n" for length in range(30)),
)
"""What is repeated until it is a body."""

LINES = (
    *(
        "# H\n",
        "## Two two ##\n",
        "#\n",
        "a\n",
        "- i\n",
        "1. Buy\n",
        "|a|b|\n",
        "|-|-|\n",
        "\n",
        "\n\n",
        "```\n",
        "~~~~\n",
        "x:\n",
        "\t- y\n",
    ),
    *(
        "A. ",
        "b! ",
        "e.g. ",
        "Dr. X ",
        "\u6f22\u3002",
        "  x\n",
        "SHOUT\n\n",
        "1.2 Tt\n\n",
        "Word. Next ",
        "---\n",
        "===\n",
        "word " * 60,
    ),
    *(
        "Some words in a sentence. " * 12,
        "x" * 300,
        "\u6f22" * 260,
        "\u300cx\u3002\u300d",
        "(a.b.) ",
        "| x | y |\n" * 40,
        "- item item\n" * 50,
    ),
)
"""What is put together by chance."""


def bodies() -> Mapping[str, str]:
    """Make the texts, each with a name."""
    draw = random.Random(5)
    repeated = {f"{one[:12]!r}": (one * LENGTH)[:LENGTH] for one in REPEATED}
    mixed = {f"mixed {number}": "".join(draw.choices(LINES, k=40)) for number in range(40)}
    ours = (DATA / "retrieval" / "documents.jsonl").read_text("utf-8").splitlines()
    read = {f"document {number}": json.loads(line)["body"] for number, line in enumerate(ours)}
    return repeated | mixed | read


def digest(body: str) -> str:
    """Digest what the chunker makes of a body."""
    made = [(one.number, one.text, one.overlap) for one in chunk(body)]
    return sha256(json.dumps(made).encode()).hexdigest()[:16]


def test_the_chunks_are_those_that_were_recorded() -> None:
    """Of each text, the numbers, texts and overlaps of its chunks."""
    assert {name: digest(body) for name, body in bodies().items()} == json.loads(RECORDED.read_text("utf-8"))


if __name__ == "__main__":
    RECORDED.write_text(json.dumps({name: digest(body) for name, body in bodies().items()}, indent=0) + "\n", "utf-8")
