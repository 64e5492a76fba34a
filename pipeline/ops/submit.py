"""Reading requests from a person's JSON lines, and following their jobs to the end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipeline.core import headers as h
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Failure, Request, Result
from pipeline.core.ports import Codec
from pipeline.core.record import Record


def read_requests(lines: Iterable[str], origin: str) -> Iterator[Request]:
    """Read one request per JSON line, skipping empty ones.

    Raises ConfigurationError with the file, the line and what is wrong with it.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield Request.model_validate(json.loads(line))
            except ValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'request'}: {p['msg']}" for p in error.errors())
                raise ConfigurationError(f"{origin}, line {number}: {wrong}") from None
            except ValueError as error:
                raise ConfigurationError(f"{origin}, line {number}: not JSON ({error})") from None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: `status` is completed or failed, `body` what the result or the failure says."""

    job: str
    status: str
    body: dict[str, Any]


async def endings(
    records: AsyncIterator[Record], codec: Codec, results_topic: str, wanted: Iterable[str]
) -> AsyncIterator[Ending]:
    """Yield the ending of each job in `wanted` as it appears in `records` (results and failures), then stop.

    A job that stands in the dead letters counts as failed: it may still complete after a replay.
    """
    waiting = set(wanted)
    async for record in records:
        job = h.texts(record.headers).get(h.CE_SUBJECT, "")
        if job in waiting and record.value is not None:
            waiting.discard(job)
            yield await _ending(record, codec, job, completed=record.topic == results_topic)
        if not waiting:
            return


async def _ending(record: Record, codec: Codec, job: str, *, completed: bool) -> Ending:
    value = record.value or b""
    if completed:
        return Ending(job, "completed", (await codec.decode("results", Result, value)).model_dump(mode="json"))
    return Ending(job, "failed", (await codec.decode("failures", Failure, value)).model_dump(mode="json"))
