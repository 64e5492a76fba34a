"""Identity: the same input gives the same ids, different input never does, and a job keeps its own."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.job import Job, child_id, job_id, positional_job_id
from pipeline.core.record import Record
from tests.core.strategies import few, jobs, records, texts

KEYS = st.tuples(texts, texts, texts)


def test_ids_are_the_same_for_ever() -> None:
    """The ids of a request, a record without an id and a child are written down here: no release may change them."""
    record = Record("requests", 3, 42, b"key", b"value", (("ce_time", b"now"),), 1_700_000_000_000)
    assert "934fdc4c-041c-5026-b186-5072f980b78c" == job_id("acme", "shop", "order-1")
    assert "7a3e6980-0cd2-5be7-95ec-639b696e514c" == positional_job_id(record)
    assert "95f3124b-9825-5b3f-adae-ff972d0e4a4f" == child_id("parent", "infer", 0, 0)


@given(KEYS)
def test_every_id_is_a_version_5_uuid(key: tuple[str, str, str]) -> None:
    """Whatever tenant, source and id hold, the job's id is a UUIDv5 in its usual spelling."""
    uuid = UUID(job_id(*key))
    assert (5, job_id(*key)) == (uuid.version, str(uuid))


@given(KEYS, KEYS)
def test_only_the_same_request_is_the_same_job(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Two requests have one job id exactly when tenant, source and id are all equal."""
    assert (one == other) == (job_id(*one) == job_id(*other))


@few
@given(st.text('"\\,[]ab', max_size=8), st.data())
def test_joining_never_makes_two_requests_one(text: str, data: st.DataObject) -> None:
    """One text cut at two different places gives different ids, also where it holds quotes, commas and brackets."""
    first = data.draw(st.integers(0, len(text)))
    second = data.draw(st.integers(0, len(text)).filter(lambda cut: cut != first)) if text else None
    if second is not None:
        assert job_id("t", text[:first], text[first:]) != job_id("t", text[:second], text[second:])


@given(st.tuples(texts, texts, *[st.integers(0, 99)] * 2), st.tuples(texts, texts, *[st.integers(0, 99)] * 2))
def test_children_differ_in_parent_stage_index_or_run(
    one: tuple[str, str, int, int], other: tuple[str, str, int, int]
) -> None:
    """Two outputs have one id exactly when parent, stage, output index and run are all equal."""
    assert (one == other) == (child_id(*one) == child_id(*other))


def test_a_number_and_its_text_are_not_the_same() -> None:
    """Index and run do not run into each other, and no child's id is a job's."""
    ids = {child_id("p", "s", 1, 12), child_id("p", "s", 11, 2), child_id("p", "s1", 1, 2), job_id("p", "s", "1")}
    assert 4 == len(ids)


@few
@given(records())
def test_position_and_bytes_name_a_record_without_an_id(record: Record) -> None:
    """Key and headers do not matter: copies and re-reads of a record give the id that it had."""
    bare = Record(record.topic, record.partition, record.offset, None, record.value, (), record.timestamp_ms)
    assert positional_job_id(record) == positional_job_id(bare)


@pytest.mark.parametrize(
    "other",
    [
        Record("other", 0, 1, None, b"value", (), 5),
        Record("topic", 1, 1, None, b"value", (), 5),
        Record("topic", 0, 2, None, b"value", (), 5),
        Record("topic", 0, 1, None, b"another", (), 5),
        Record("topic", 0, 1, None, b"value", (), 6),
    ],
)
def test_a_topic_that_was_created_anew_gives_new_ids(other: Record) -> None:
    """Topic, partition, offset, value and timestamp each tell two records without ids apart."""
    assert positional_job_id(Record("topic", 0, 1, None, b"value", (), 5)) != positional_job_id(other)


@few
@given(jobs, texts)
def test_a_job_never_changes_its_id(job: Job, text: str) -> None:
    """Everything about a job may advance but its id, even when somebody asks for that."""
    assert (job.id, text) == (job.advanced(id=text, tenant=text).id, job.advanced(id=text, tenant=text).tenant)


def test_an_unknown_fact_about_a_job_is_refused() -> None:
    """A misspelt field is an error, not a fact that is lost."""
    with pytest.raises(TypeError, match="tenent"):
        Job("id").advanced(tenent="acme")


@pytest.mark.parametrize("now, late", [(9.9989, False), (9.999, False), (10.0, True), (11.0, True)])
def test_a_job_is_late_from_its_deadline_on(now: float, late: bool) -> None:
    """The deadline is in epoch milliseconds, the time in seconds; at the deadline itself a job is late."""
    assert late == Job("id", deadline_ms=10_000).late(now)


def test_a_job_without_a_deadline_is_never_late() -> None:
    """No deadline is no deadline, not one at the epoch; a deadline at the epoch has passed."""
    assert (False, True) == (Job("id").late(1e12), Job("id", deadline_ms=0).late(0.0))
