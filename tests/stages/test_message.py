"""Tests of pipeline/stages/message.py; what a whole body holds is in test_notify.py."""

from __future__ import annotations

import hashlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.payloads import Failure, Result
from pipeline.stages.message import THIN, THIN_BYTES, completed, failed
from tests.stages.made import NOW_MS, event

ANSWER = "At nine [1]. \u00e4"
RESULT = Result(
    answer=ANSWER,
    data='{"hours": [9, 18]}',
    model="small-2024",
    finish_reason="stop",
    prompt_tokens=30,
    completion_tokens=5,
    cost_usd=0.00004,
    latency_ms=900,
    metadata={"ticket": "7"},
)
# Text that JSON spells with six bytes a character.
LONG = st.text(st.sampled_from('\x00\x1f"\\a\u00e4\u20ac'), max_size=3_000)


def test_a_thin_body_tells_how_a_job_ended() -> None:
    """With the size and hash of the answer, by which a receiver knows that it has read the right one."""
    body = json.loads(completed(event(RESULT, conversation="c-1", cost_usd=0.5), RESULT, THIN))
    assert (body["type"], body["timestamp"]) == ("job.completed", "2027-01-15T08:00:00.000Z")
    assert body["data"] == {
        "job_id": "job-1",
        "run": 0,
        "tenant": "acme",
        "type": "quick",
        "conversation": "c-1",
        "status": "completed",
        "answer_bytes": 15,
        "answer_sha256": hashlib.sha256(ANSWER.encode()).hexdigest(),
        "structured": True,
        "citations": 0,
        "truncated": False,
        "cost_usd": 0.5,
        "metadata": {"ticket": "7"},
        "omitted": [],
    }


def test_a_thin_body_of_a_failure_tells_why() -> None:
    """Its fields are those of a whole one, and the status."""
    failure = Failure(stage="infer", code="refused", reason="No.", failed_at_ms=NOW_MS)
    data = json.loads(failed(event(failure), failure, THIN))["data"]
    assert (data["status"], data["code"], data["reason"], data["stage"], data["recoverable"]) == (
        "failed",
        "refused",
        "No.",
        "infer",
        False,
    )


@settings(max_examples=30)
@given(LONG, LONG, st.dictionaries(LONG, LONG, max_size=8))
def test_a_thin_body_is_never_large(text: str, name: str, metadata: dict[str, str]) -> None:
    """Whatever it is about: long names and reasons are cut, and metadata that does not fit is named as left out."""
    result = RESULT.model_copy(update={"answer": text, "metadata": metadata})
    failure = Failure(stage=name, code=name, reason=text, failed_at_ms=NOW_MS, metadata=metadata)
    told = {"id": "job-1", "tenant": name, "type": name, "conversation": name}
    for body in (
        completed(event(result, **told), result, THIN),
        failed(event(failure, **told), failure, THIN),
    ):
        assert len(body) <= THIN_BYTES
        data = json.loads(body)["data"]
        assert (data["metadata"], data["omitted"]) in ((metadata, []), (None, ["metadata"]))


def test_metadata_that_does_not_fit_a_thin_body_is_left_out_and_named() -> None:
    """A receiver is told that there is more, rather than nothing at all."""
    result = RESULT.model_copy(update={"metadata": {str(number): "x" * 1_000 for number in range(32)}})
    data = json.loads(completed(event(result), result, THIN))["data"]
    assert (data["metadata"], data["omitted"], data["answer_bytes"]) == (None, ["metadata"], 15)


def test_a_large_answer_is_whole_in_the_first_version() -> None:
    """Half a megabyte of answer is sent as it is: who cannot take that asks for thin bodies."""
    result = RESULT.model_copy(update={"answer": "x" * 500_000})
    assert json.loads(completed(event(result), result))["data"]["answer"] == result.answer
    assert len(completed(event(result), result, THIN)) < 1_000
