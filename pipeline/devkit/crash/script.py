"""What is asked of the pipeline in one run, and how each request must end: drawn from a seed, pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal

from pipeline.core.catalog import Catalog, parse_catalog
from pipeline.core.job import Lane
from pipeline.core.payloads import Document, Passage, Request

End = Literal["result", "failure", "dead", "unheard"]
"""`unheard`: a result whose webhook never gets through, and so has a dead letter of its own."""

REFUSED = "please refuse"
"""A question with these words is one that the simulated model refuses for good."""

BROKEN = "please break"
"""A question with these words is one at which the simulated model fails each time."""

UNHEARD = "please whisper"
"""An answer with these words is one that the receiver of webhooks never takes."""

PASSAGE = Passage(source="s", document="d", chunk=0, version=1, score=1.0, title="t", text="a passage")


_LANES: tuple[Lane | None, ...] = (None, None, "interactive", "batch")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, or raw bytes that are none. `copies` is how often its sender writes it, not being idempotent.

    `exhausts` says that it ends only when all tries are used up.
    """

    at: float
    key: bytes | None
    request: Request | None
    end: End
    copies: int = 1
    garbage: bytes = b""
    exhausts: bool = False

    @property
    def hurries(self) -> bool:
        """Whether its deadline may pass before it is done."""
        return self.request is not None and self.request.deadline_ms is not None


@dataclass(frozen=True, slots=True)
class Script:
    """All that goes in."""

    asked: Sequence[Asked]
    documents: Sequence[tuple[float, Document]]


def draw(seed: int, until: float) -> Script:
    """Draw six to twelve requests of few keys, most of them early, and two states of each of two documents."""
    chance = Random(f"{seed}/script")  # noqa: S311  # reproducible on purpose
    asked = [_asked(chance, number, until) for number in range(chance.randint(6, 12))]
    documents = [
        (chance.uniform(0.0, until), Document(source="s", id=name, tenant="library", title=name, body="x", version=n))
        for name in ("one", "two")
        for n in (1, 2)
    ]
    return Script(sorted(asked, key=lambda one: one.at), sorted(documents, key=lambda one: (one[0], one[1].id)))


def _asked(chance: Random, number: int, until: float) -> Asked:
    at = chance.random() ** 3 * until
    key = chance.choice((b"a", b"a", b"b", b"c", None))
    fate = chance.random()
    copies = 2 if chance.random() < 0.1 else 1
    if fate < 0.04:
        return Asked(at, key, None, "dead", copies=1, garbage=b"no avro %d" % number)
    if fate < 0.08:
        return Asked(at, key, _request(number, "unknown type", kind="nonsense"), "failure", copies)
    if fate < 0.12:
        return Asked(at, key, _request(number, REFUSED), "dead", copies)
    if fate < 0.16:
        return Asked(at, key, _request(number, f"{BROKEN} {number}"), "dead", copies, exhausts=True)
    if fate < 0.17:
        return Asked(at, key, _request(number, f"{UNHEARD} {number}"), "unheard", copies, exhausts=True)
    lane = chance.choice(_LANES)
    allowed = int(chance.uniform(500, 60_000)) if fate < 0.25 else None
    return Asked(at, key, _request(number, f"question {number}", lane=lane, allowed=allowed), "result", copies)


def _request(
    number: int, text: str, kind: str = "answer", lane: Lane | None = None, allowed: int | None = None
) -> Request:
    return Request(type=kind, input=text, id=f"request-{number}", lane=lane, deadline_ms=allowed)


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """Return a catalog with one plain type, whose own deadline no fault of a run can reach."""
    kind = {"model": "m", "template": "t", "max_output_tokens": 50, "endpoint": "default", "deadline_seconds": 86_400}
    return parse_catalog(
        {
            "default_endpoint": "default",
            "models": {"m": {"input_usd_per_million": 1.0, "output_usd_per_million": 1.0}},
            "templates": {"t": {"system": "Answer.", "user": "{{ input }}"}},
            "endpoints": {"default": {"url": "https://example.com/", "secret_env": "SECRET"}},
            "types": {"answer": kind},
        },
        "the crash simulator's own",
    )
