"""The demo: the sample documents indexed, the sample requests answered, every webhook verified, and the sum of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.payloads import Document, Request
from pipeline.devkit import samples
from pipeline.devkit.receiver import Receiver
from pipeline.devkit.samples import SampleRequest

RIGHT_SHARE = 0.9
"""The share of right answers below which the demo fails."""


class Pipeline(Protocol):
    """A running pipeline, as the demo sees it."""

    async def document(self, document: Document) -> None:
        """Write one state of a document to the documents topic."""
        ...

    async def request(self, request: Request) -> str:
        """Write a request to the requests topic; returns its job's id."""
        ...

    async def lag(self, stage: str) -> int:
        """Count the records that a stage has still to settle on its sources."""
        ...

    async def dead(self) -> int:
        """Count the records in all dead-letter topics."""
        ...


class Progress(Protocol):
    """Where long work shows how far it is."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of `what` are done."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one sample request. `seconds` is from its submission to its accepted webhook."""

    request: SampleRequest
    answer: str
    citations: tuple[str, ...]
    tokens: int
    cost_usd: float
    seconds: float
    outcome: str
    right: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo in figures, as `.run/summary.json` has them.

    `duplicates` counts webhook-ids that were accepted more than once.
    """

    submitted: int
    delivered: int
    dead: int
    failed: int
    duplicates: int
    correct: int
    seconds: float
    broker: str

    @property
    def passed(self) -> bool:
        """Whether every request was delivered and enough answers are right."""
        return self.delivered == self.submitted > 0 and self.correct >= RIGHT_SHARE * self.submitted

    def write(self, path: Path) -> None:
        """Write the figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Demo:
    """Drives a running pipeline. `wait_seconds` bounds the wait for the last webhook."""

    pipeline: Pipeline
    receiver: Receiver
    broker: str
    progress: Progress
    wait_seconds: float = 120.0
    clock: Callable[[], float] = time.time

    async def index(self) -> int:
        """Index the sample documents; returns their number when they can be found."""
        documents = samples.documents()
        for number, sample in enumerate(documents, start=1):
            await self.pipeline.document(Document(**sample.model_dump()))
            self.progress("indexing documents", number, len(documents) + 1)
        await self._until_idle("index")
        self.progress("indexing documents", len(documents) + 1, len(documents) + 1)
        return len(documents)

    async def ask(self, requests: Sequence[SampleRequest]) -> tuple[list[Row], Summary]:
        """Submit all requests, wait for their webhooks, and judge the answers."""
        began = self.clock()
        submitted: dict[str, float] = {}
        for sample in requests:
            submitted[sample.id] = self.clock()
            await self.pipeline.request(
                Request(
                    type=sample.type,
                    input=sample.input,
                    id=sample.id,
                    tenant=sample.tenant,
                    key=sample.key,
                    metadata={"sample": sample.id},
                )
            )
        await self._until_delivered([sample.id for sample in requests])
        came = arrived(self.receiver)
        rows = [_row(sample, came.get(sample.id), submitted[sample.id]) for sample in requests]
        return rows, await self._summary(rows, self.clock() - began)

    async def _summary(self, rows: Sequence[Row], seconds: float) -> Summary:
        return Summary(
            submitted=len(rows),
            delivered=sum(row.outcome != "missing" for row in rows),
            dead=await self.pipeline.dead(),
            failed=sum(row.outcome == "failed" for row in rows),
            duplicates=len(self.receiver.duplicates()),
            correct=sum(row.right for row in rows),
            seconds=round(seconds, 3),
            broker=self.broker,
        )

    async def _until_idle(self, stage: str) -> None:
        end = time.monotonic() + self.wait_seconds
        while await self.pipeline.lag(stage) > 0:
            if time.monotonic() > end:
                raise TimeoutError(f"{stage} has not caught up within {self.wait_seconds:g} s; its log says why")
            await asyncio.sleep(0.1)

    async def _until_delivered(self, wanted: Iterable[str]) -> None:
        names = set(wanted)
        end = time.monotonic() + self.wait_seconds
        while time.monotonic() < end:
            done = names & arrived(self.receiver).keys()
            self.progress("answering requests", len(done), len(names))
            if done == names:
                return
            await asyncio.sleep(0.05)


def arrived(receiver: Receiver) -> dict[str, tuple[float, dict[str, Any]]]:
    """Find the first verified and accepted webhook of each sample: when it came, and its body."""
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for delivery in receiver.received:
        body = delivery.body
        if delivery.accepted and delivery.verified and isinstance(body, dict):
            name = body.get("data", {}).get("metadata", {}).get("sample")
            if isinstance(name, str):
                found.setdefault(name, (delivery.received_at, body))
    return found


def _row(sample: SampleRequest, arrived: tuple[float, dict[str, Any]] | None, submitted: float) -> Row:
    if arrived is None:
        return Row(sample, "", (), 0, 0.0, 0.0, "missing", right=False)
    at, body = arrived
    data = body["data"]
    if body.get("type") != "job.completed":
        return Row(sample, str(data.get("reason", "")), (), 0, 0.0, at - submitted, "failed", right=False)
    citations = tuple(str(citation["document"]) for citation in data["citations"])
    usage = data["usage"]
    right = samples.is_right(sample, data["answer"]) and sample.expect.document in citations
    tokens = int(usage["prompt_tokens"]) + int(usage["completion_tokens"])
    return Row(sample, data["answer"], citations, tokens, float(data["cost_usd"]), at - submitted, "completed", right)
