"""Sample data: the handbook of an invented parcel locker company, and questions whose right answers are known.

Two tenants: `fennlock`, the company, and `harbourside`, a house with rules of its own that contradict the company's, so
that an answer from the wrong tenant's documents is a wrong answer.
"""

import re
from collections.abc import Iterator
from importlib.resources import files

from pydantic import BaseModel, ConfigDict


class SampleDocument(BaseModel):
    """A document to index; paragraphs of `body` are parted by a blank line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    id: str
    tenant: str
    title: str
    body: str
    version: int

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The body's paragraphs in order."""
        return tuple(self.body.split("\n\n"))


class Expectation(BaseModel):
    """What a right answer has: every text of `contains`, and a citation of `document`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contains: tuple[str, ...]
    document: str


class SampleRequest(BaseModel):
    """A request to submit; requests of one `key` are to be handled in their order here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    tenant: str
    type: str
    input: str
    key: str | None = None
    expect: Expectation


def documents() -> list[SampleDocument]:
    """All sample documents of both tenants."""
    return [SampleDocument.model_validate_json(line) for line in _lines("documents.jsonl")]


def requests() -> list[SampleRequest]:
    """All sample requests."""
    return [SampleRequest.model_validate_json(line) for line in _lines("requests.jsonl")]


def is_right(request: SampleRequest, answer_text: str) -> bool:
    """Whether an answer has all that it must contain, as whole words, in any case and with any spacing."""
    answer = _normal(answer_text)
    return all(re.search(rf"(?<!\w){re.escape(_normal(text))}(?!\w)", answer) for text in request.expect.contains)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _lines(name: str) -> Iterator[str]:
    # Not splitlines(): it also breaks at characters that may stand inside a JSON string.
    text = files(__name__).joinpath(name).read_text("utf-8")
    return (line for line in text.split("\n") if line)
