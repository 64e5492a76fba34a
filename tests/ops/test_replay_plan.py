"""Plans of replays: what goes where, what stays and why, what it costs; and that a plan changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import ConfigurationError
from pipeline.core.event import MAX_HOPS
from pipeline.core.patch import Patch
from pipeline.core.payloads import Document, Letter, Request
from pipeline.core.record import Outgoing, Partition, Record
from pipeline.core.replay import REFUSALS, Rules
from pipeline.ops.replay_plan import BY_KEY, Place, Plan, Reason, Wanted, sentences
from tests.core.test_letter import dead
from tests.ops.replay_world import CODEC, Site
from tests.ops.test_letter_decode import INDEX, ROW, Rows

pytestmark = pytest.mark.virtual
RULES = Rules("r1")
RETRY = "p.infer.retry.10s"


def refused(plan: Plan) -> Mapping[str, int]:
    """What a plan leaves where it is."""
    assert not plan.tally.going
    return dict(plan.tally.refused)


async def mark(site: Site, letter: str, **entry: Any) -> None:
    """Write the state of a letter, as another verb does."""
    value = await CODEC.encode("letters", Letter(at_ms=1, **entry))
    site.broker.append(Outgoing("p.letters", letter.encode(), value, partition=0))


async def test_a_plan_tells_what_would_go_where() -> None:
    """By topic and partition, by reason and by age, with what it costs; as JSON, too."""
    site = await Site.make()
    for number in range(3):
        await site.bury(number)
    await site.bury(3, code="context_too_long")
    await asyncio.sleep(120)
    tally = (await site.plan(RULES)).tally
    assert (4, 4) == (tally.selected, tally.going)
    assert {Place("infer", RETRY, 0): 2, Place("infer", RETRY, 1): 2} == dict(tally.places)
    assert {Reason("infer", "model_500"): 3, Reason("infer", "context_too_long"): 1} == dict(tally.reasons)
    assert {"under an hour": 4} == dict(tally.ages)
    assert (4, 2000) == (tally.cost.calls, tally.cost.completion_tokens)
    assert tally.cost.usd > 0
    assert json.loads(json.dumps(tally.told()))["going"] == 4


async def test_a_plan_changes_nothing() -> None:
    """No offset of any topic moves."""
    site = await Site.make()
    for number in range(5):
        await site.bury(number, job={"deadline_ms": 5} if number % 2 else {})
    before = site.counts()
    await site.plan(Rules("r1", source="retrieve", extend=10))
    await site.plan(RULES)
    assert before == site.counts()


@pytest.mark.parametrize(
    "state, rules, word",
    [
        ("replayed", RULES, "replayed"),
        ("replayed", Rules("r1", again=True), ""),
        ("resolved", Rules("r1", again=True), "resolved"),
        ("purged", Rules("r1", again=True), "purged"),
        ("quarantined", Rules("r1", again=True, most=9), "quarantined"),
        ("assigned", RULES, ""),
    ],
)
async def test_a_letters_state_counts(state: str, rules: Rules, word: str) -> None:
    """Open and assigned letters go; replayed ones where that is asked for; no others."""
    site = await Site.make()
    head = await site.bury(1)
    await mark(site, head.id, state=state, replay="r0", replays=1)
    tally = (await site.plan(rules)).tally
    assert ({word: 1} if word else {}) == dict(tally.refused)


async def test_a_deadline_that_has_passed() -> None:
    """It needs more time; a later replay counts with what an earlier one has given."""
    site = await Site.make()
    await site.bury(1, job={"deadline_ms": 5})
    assert refused(await site.plan(RULES)) == {"deadline": 1}
    assert (await site.plan(Rules("r1", extend=60))).tally.going == 1
    late = (h.REPLAY_ID, b"r0"), (h.REPLAY_DEADLINE, b"9999999999999")
    await site.bury(2, job={"deadline_ms": 5}, headers=late)
    tally = (await site.plan(RULES)).tally
    assert (1, {"deadline": 1}) == (tally.going, dict(tally.refused))


async def test_requests_have_the_deadline_of_their_type() -> None:
    """It counts from when they were accepted, as `preprocess` counts it."""
    site = await Site.make()
    await site.bury(1, "preprocess", Request(type="quick_answer", input="?", deadline_ms=1_000))
    await site.bury(2, "preprocess", Request(type="quick_answer", input="?"))
    assert (await site.plan(RULES)).tally.going == 2
    await asyncio.sleep(60)
    tally = (await site.plan(RULES)).tally
    assert (1, {"deadline": 1}) == (tally.going, dict(tally.refused))
    assert {Place("preprocess", "p.preprocess.retry.10s", BY_KEY): 1} == dict(tally.places)
    await asyncio.sleep(300)
    assert refused(await site.plan(RULES)) == {"deadline": 2}


async def test_what_cannot_be_decoded() -> None:
    """It stays, unless that is asked for; after the schema is mended it goes like all others."""
    site = await Site.make()
    await site.bury(1, value=b"junk")
    assert refused(await site.plan(RULES)) == {"undecodable": 1}
    tally = (await site.plan(Rules("r1", undecodable=True))).tally
    assert (1, 1, 1) == (tally.going, tally.undecodable, tally.cost.unpriced)


async def test_too_many_replays_and_too_many_stages() -> None:
    """Both are told by the letter's own headers, whatever became of its former lives."""
    site = await Site.make()
    await site.bury(1, headers=((h.REPLAY_ID, b"r0"), (h.REPLAY_COUNT, b"3")))
    await site.bury(2, job={"hops": MAX_HOPS})
    plan = await site.plan(RULES)
    assert refused(plan) == {"max_replays": 1, "hops": 1}
    assert sum(map(len, plan.worn.values())) == 1
    assert (await site.plan(Rules("r1", most=4))).tally.going == 1


async def test_what_comes_back_at_once_with_the_same_failure() -> None:
    """It stays for as long as the guard lasts; with another failure it goes."""
    site = await Site.make()
    head = await site.bury(1)
    await site.replay(Rules("r0"))
    came = (h.REPLAY_ID, b"r0"), (h.REPLAY_LETTER, head.id.encode()), (h.REPLAY_COUNT, b"1")
    await site.bury(1, headers=came)
    await site.bury(3, code="another", headers=came)
    tally = (await site.plan(RULES)).tally
    assert (1, {"loop": 1, "replayed": 1}) == (tally.going, dict(tally.refused))
    assert (await site.plan(Rules("r1", guard=0))).tally.going == 2
    await asyncio.sleep(700)
    assert (await site.plan(RULES)).tally.going == 2


async def test_what_comes_back_from_this_very_replay() -> None:
    """It is not replayed by the same one again, however often that is resumed."""
    site = await Site.make()
    await site.bury(1, headers=((h.REPLAY_ID, b"r1"), (h.REPLAY_COUNT, b"1")))
    tally = (await site.plan(Rules("r1", again=True))).tally
    assert (0, 1) == (tally.going, tally.done)


async def test_no_topic_or_no_partition_to_go_to() -> None:
    """Both are said, and what to run."""
    site = await Site.make()
    await site.bury(1)
    known = await site.known()
    for count, word in ((None, "topic"), (1, "partition")):
        counts = {**known.partitions} | ({RETRY: count} if count else {})
        if count is None:
            del counts[RETRY]
        assert refused(await site.plan(RULES, counts=counts)) == {word: 1}
    assert "pipeline topics grow" in REFUSALS["partition"]


async def test_a_stage_that_is_no_more() -> None:
    """Its letters are found, and go where they are sent, if that stage reads the topic that they first stood on."""
    site = await Site.make()
    head = await site.bury(1)
    (dead,) = site.broker.records("p.infer.dlq")
    old = tuple((name, b"summarise" if name.endswith("dead-stage") else value) for name, value in dead.headers)
    await site.broker.delete_topics(["p.infer.dlq"])
    await site.create("p.summarise.dlq", "p.infer.dlq")
    site.lay("summarise", dead, old)
    assert refused(await site.plan(RULES)) == {"stage": 1}
    assert refused(await site.plan(Rules("r1", to="notify"))) == {"not_read": 1}
    assert (await site.plan(Rules("r1", to="infer"))).tally.going == 1
    await site.replay(Rules("r1", to="infer"))
    (copy,) = site.back()
    assert h.texts(copy.headers)[h.ORIGINAL] == head.original
    with pytest.raises(ConfigurationError, match="--to nobody: there is no such stage; there are preprocess, "):
        await site.plan(Rules("r1", to="nobody"))


async def test_letters_of_other_programs() -> None:
    """One of Spring's that tells its place goes to the stage that is named; one that does not tell it stays."""
    site = await Site.make()
    value = await CODEC.encode("requests", Request(type="quick_answer", input="?"))
    record = Record("p.requests", 1, 7, b"k", value, (("mine", b"1"),), 1_799_999_999_000)
    spring = (
        ("kafka_dlt-original-topic", b"p.requests"),
        ("kafka_dlt-original-partition", (1).to_bytes(4, "big")),
        ("kafka_dlt-original-offset", (7).to_bytes(8, "big")),
        ("kafka_dlt-original-timestamp", (1_799_999_999_000).to_bytes(8, "big")),
        ("kafka_dlt-exception-fqcn", b"java.lang.IllegalStateException"),
    )
    site.lay("preprocess", record, (*record.headers, *spring))
    site.lay("preprocess", record, record.headers)
    assert refused(await site.plan(RULES)) == {"foreign": 2}
    rules = Rules("r1", to="preprocess")
    tally = (await site.plan(rules)).tally
    assert (1, {"no_position": 1}) == (tally.going, dict(tally.refused))
    await site.replay(rules)
    (copy,) = site.back("preprocess")
    told = dict(copy.headers)
    assert (b"1", b"p.requests/1/7/1799999999000") == (told["mine"], told[h.ORIGINAL])
    assert not [name for name in told if name.startswith("kafka_dlt-")]


async def test_a_row_of_a_table() -> None:
    """A letter of a topic of others goes back to the stage that reads it, which decodes it as that stage does."""
    site, rows = await Site.make(), Rows()
    site.lay("index", replace(ROW, partition=0), dead(ROW, INDEX).headers)
    plan = await site.plan(RULES, decoder=rows, foreign=lambda stage: ["app.rows"] if stage.name == "index" else ())
    assert (1, [ROW]) == (plan.tally.going, rows.records)


async def test_what_can_be_set_of_what() -> None:
    """A document is no job: nothing of it can be set."""
    site = await Site.make()
    document = Document(source="s", id="1", tenant="t", title="", body="", version=1)
    await site.bury(1, "index", document)
    assert refused(await site.plan(Rules("r1", patch=Patch(model="gpt-4o-mini")))) == {"no_job": 1}
    assert (await site.plan(RULES)).tally.going == 1


async def test_a_limit() -> None:
    """What is beyond it is counted."""
    site = await Site.make()
    for number in range(5):
        await site.bury(number)
    tally = (await site.plan(RULES, Wanted(limit=2))).tally
    assert (2, {"limit": 3}) == (tally.going, dict(tally.refused))


async def test_ends_of_an_earlier_look() -> None:
    """What died since is not looked at."""
    site = await Site.make()
    await site.bury(1)
    first = await site.plan(RULES)
    await site.bury(3)
    assert (await site.plan(RULES, Wanted(ends=first.ends))).tally.selected == 1
    assert Partition("p.infer.dlq", 1) in first.ends


# ------------------------------------------------------------------------------------------------ from an earlier stage
async def test_a_job_done_again_from_an_earlier_stage() -> None:
    """The newest record of it that this stage reads goes to its first tier, as the next run; the letter is done."""
    site = await Site.make()
    head = await site.bury(1, job={"run": 1})
    await site.bury(2)
    for run in (b"0", b"1"):
        headers = ((h.CE_SUBJECT, b"job-1"), (h.CE_ID, b"e"), (h.RUN, run), (h.REPLAY_ID, b"forged"))
        site.broker.append(Outgoing("p.prompts", b"k1", b"prompt " + run, headers, 1))
    rules = Rules("r1", source="retrieve")
    plan = await site.plan(rules)
    assert (1, {"not_kept": 1}) == (plan.tally.going, dict(plan.tally.refused))
    assert {Place("retrieve", "p.retrieve.retry.10s", 1): 1} == dict(plan.tally.places)
    assert (await site.replay(rules)).replayed == 1
    (copy,) = site.back("retrieve")
    told = h.texts(copy.headers)
    assert (b"k1", b"prompt 1", 1) == (copy.key, copy.value, copy.partition)
    assert ("2", "r1", head.id) == (told[h.REPLAY_RUN], told[h.REPLAY_ID], told[h.REPLAY_LETTER])
    assert told[h.ORIGINAL].startswith("p.prompts/1/1/")
    again = (await site.plan(rules)).tally
    assert (0, 1) == (again.going, again.done)
    assert not site.back("infer")


async def test_from_the_request() -> None:
    """Whose it is only its value tells, and it may stand on any partition."""
    site = await Site.make()
    request = Request(type="quick_answer", input="?", id="mine")
    await site.bury(1, "preprocess", request)
    await site.bury(1, "preprocess", request)
    plan = await site.plan(Rules("r1", source="preprocess"))
    assert (2, 1) == (plan.tally.going, sum(map(len, plan.sources.values())))
    report = await site.replay(Rules("r1", source="preprocess"))
    assert (1, 2) == (report.copies, report.replayed)


async def test_from_a_later_stage() -> None:
    """A job cannot be done again from where it has not been yet."""
    site = await Site.make()
    await site.bury(1)
    assert refused(await site.plan(Rules("r1", source="notify"))) == {"later": 1}
    with pytest.raises(ConfigurationError, match="--from nobody: there is no such stage"):
        await site.plan(Rules("r1", source="nobody"))


def test_refusals_are_sentences() -> None:
    """The most frequent first, with what helps."""
    told = sentences({"deadline": 1, "purged": 2})
    assert told == [
        "2 are purged",
        "1 is of jobs whose deadline has passed; --extend SECONDS gives them more time",
    ]
