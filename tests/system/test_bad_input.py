"""Bad records on the open topic of the whole pipeline: each comes to a clear end, and the rest flows on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline import wiring
from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.limits import MAX_INPUT_CHARACTERS
from pipeline.core.payloads import Prompt, Request
from pipeline.core.ports import RecordTooLarge
from pipeline.core.record import Headers, Outgoing, Record
from pipeline.devkit.kafka import Broker
from pipeline.devkit.simulator import Fault, FaultKind
from tests.system.site import Site, site, until

pytestmark = [pytest.mark.kafka, pytest.mark.system]

GOOD = Request(type="quick_answer", input="Is anybody there?", tenant="fennlock")


async def _bad_values(place: Site) -> Mapping[str, bytes | None]:
    async with place.desk() as desk:
        good = await desk.codec.encode("requests", GOOD)
        wrong_noun = await desk.codec.encode(
            "prompts",
            Prompt(type="quick_answer", input="x", input_tokens=1, lane="standard", deadline_ms=1, catalog="c"),
        )
    return {
        "undecodable": b"\x00\xffnot avro at all",
        "no framing": b'{"type": "quick_answer"}',
        "empty": b"",
        "unknown fingerprint": good[:2] + bytes(8) + good[10:],
        "unknown schema id": b"\x00\x00\x0f\x42\x40" + good[10:],
        "trailing bytes": good + b"extra",
        "truncated": good[:-3],
        "null": None,
        "another noun": wrong_noun,
        "length of 2^62": good[:10] + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    }


async def _send(place: Site, value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> None:
    async with place.desk() as desk:
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        topic = names.topic(place.prefix, "requests")
        desk.producer.send(Outgoing(topic, key, value, headers), done.set_result)
        error = await done
        if error is not None:
            raise error


async def _dead_letters(place: Site, stage: str, count: int) -> list[Record]:
    found: list[Record] = []
    topic = names.dead_letter_topic(place.prefix, stage)
    async with asyncio.timeout(30), wiring.open_tail(place.configured, [topic], from_start=True) as records:
        while len(found) < count:
            found.append(await anext(records))
    return found


@pytest.mark.within(120)
async def test_what_cannot_be_decoded_is_a_dead_letter_with_its_bytes_and_a_reason(
    kafka: Broker, tmp_path: Path
) -> None:
    """Each undecodable value: the raw bytes in the dead letters with a reason, one recoverable webhook, no retry."""
    async with site(kafka, tmp_path) as place:
        await place.start(*wiring.STAGES)
        bad = await _bad_values(place)
        for name, value in bad.items():
            await _send(place, value, key=name.encode(), headers=(("ce_id", name.encode()), ("x-odd", b"\xff\xfe")))
        async with place.desk() as desk:
            await desk.request(GOOD.model_copy(update={"id": "good"}))
        letters = {(one.key or b"").decode(): one for one in await _dead_letters(place, "preprocess", len(bad))}
        await until(lambda: len(place.receiver.accepted) == len(bad) + 1, "all webhooks")

        assert {name: letter.value for name, letter in letters.items()} == dict(bad)
        for letter in letters.values():
            read = h.texts(letter.headers)
            assert read["pipeline-dead-stage"] == "preprocess"
            assert len(read["pipeline-dead-reason"]) > 10
            assert read["pipeline-attempts"] == "0"
            assert read["x-original-topic"] == names.topic(place.prefix, "requests")
            assert ("x-odd", b"\xff\xfe") in letter.headers
        bodies = [one.body for one in place.receiver.accepted]
        failed = [body["data"] for body in bodies if body["type"] == "job.failed"]
        assert len(failed) == len(bad)
        assert all(data["recoverable"] and data["stage"] == "preprocess" for data in failed)
        assert [body["type"] for body in bodies].count("job.completed") == 1


@pytest.mark.within(120)
async def test_what_is_the_requests_own_fault_is_a_failure_with_its_webhook(kafka: Broker, tmp_path: Path) -> None:
    """Unknown type, empty and oversized input, a foreign endpoint: one `job.failed` each, and no dead letter."""
    own_faults = {
        "unknown_type": Request(type="poetry", input="x", id="1"),
        "empty_input": Request(type="quick_answer", input=" \n ", id="2"),
        "input_too_large": Request(type="quick_answer", input="x" * (MAX_INPUT_CHARACTERS + 1), id="3"),
        "unknown_endpoint": Request(type="quick_answer", input="x", endpoint="http://127.0.0.1:1/", id="4"),
        "deadline": Request(type="quick_answer", input="x", deadline_ms=0, id="5"),
    }
    async with site(kafka, tmp_path) as place:
        await place.start(*wiring.STAGES)
        async with place.desk() as desk:
            jobs = {await desk.request(request): code for code, request in own_faults.items()}
            await until(lambda: len(place.receiver.accepted) == len(jobs), "all webhooks")
            data = [one.body["data"] for one in place.receiver.accepted]
            assert {one["job_id"]: one["code"] for one in data} == jobs
            assert not any(one["recoverable"] for one in data)
            assert await desk.dead() == 0
        assert place.simulator.journal.calls == ()


@pytest.mark.within(120)
async def test_odd_headers_and_null_keys_change_nothing(kafka: Broker, tmp_path: Path) -> None:
    """Non-UTF-8, duplicate, missing, null and forged headers, and a null key: the request is answered all the same."""
    forged: Headers = (
        ("pipeline-tenant", b"harbourside"),
        ("pipeline-attempts", b"99"),
        ("pipeline-hops", b"31"),
        ("pipeline-cost", b"1000"),
        ("pipeline-run", b"7"),
        ("pipeline-not-before", b"99999999999999"),
        ("ce_id", b"\xff\xfe"),
        ("ce_id", b"twice"),
        ("ce_id", b"last"),
        ("traceparent", b"not a trace"),
        ("traceparent", None),
        ("caf\u00e9", b"\x80"),
        ("", b""),
    )
    async with site(kafka, tmp_path) as place:
        await place.start(*wiring.STAGES)
        async with place.desk() as desk:
            value = await desk.codec.encode("requests", GOOD)
        await _send(place, value)
        await _send(place, value, headers=forged)
        await _send(place, value, headers=(("pipeline-lane", b"batch"), ("pipeline-conversation", b"c%20d")))
        await until(lambda: len(place.receiver.accepted) == 3, "three webhooks")
        data = [one.body["data"] for one in place.receiver.accepted]
        assert [one.body["type"] for one in place.receiver.accepted] == ["job.completed"] * 3
        assert {one["tenant"] for one in data} == {"fennlock"}
        assert len({one["job_id"] for one in data}) == 3
        assert {one["run"] for one in data} == {0}
        assert all(one["cost_usd"] < 1 for one in data)
        assert {one["conversation"] for one in data} == {None, "c d"}


@pytest.mark.within(120)
async def test_a_payload_over_the_topics_limit_is_refused_to_its_sender(kafka: Broker, tmp_path: Path) -> None:
    """A record larger than `max.message.bytes` never enters the log: the sender gets the error."""
    async with site(kafka, tmp_path) as place:
        with pytest.raises(RecordTooLarge):
            await _send(place, b"x" * 1_100_000)


@pytest.mark.within(120)
async def test_a_rate_limit_waits_for_its_time_and_costs_no_attempt(kafka: Broker, tmp_path: Path) -> None:
    """A 429 with Retry-After: no call before that time, then the answer; a 500: one attempt, 10 s later the answer."""
    async with site(kafka, tmp_path) as place:
        await place.start(*wiring.STAGES)
        place.simulator.faults.add(Fault(kind=FaultKind.RATE_LIMIT, retry_after=3))
        async with place.desk() as desk:
            await desk.request(GOOD)
            await until(lambda: len(place.receiver.accepted) == 1, "the answer after the limit")
            limited, answered = place.simulator.journal.calls
            assert (limited.status, answered.status) == (429, 200)
            assert answered.started - limited.finished >= 3
            place.simulator.journal.reset()
            place.simulator.faults.add(Fault(kind=FaultKind.SERVER_ERROR))
            await desk.request(GOOD)
            await until(lambda: len(place.receiver.accepted) == 2, "the answer after the retry")
            failed, answered = place.simulator.journal.calls
            assert (failed.status, answered.status) == (500, 200)
            assert answered.started - failed.finished >= 10
            assert await desk.dead() == 0
