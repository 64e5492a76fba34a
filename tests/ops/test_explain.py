"""Jobs of a small pipeline in memory, explained from the topics alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.broker.memory import MemoryBroker
from pipeline.core import headers as h
from pipeline.core.control import CANCEL_SECONDS
from pipeline.core.errors import Defer, Fail, Reject, Retry
from pipeline.core.job import job_id, positional_job_id
from pipeline.core.letter import letter_id
from pipeline.core.payloads import Audit, Letter
from pipeline.core.record import Commit, Partition
from pipeline.devkit.clock import wall
from pipeline.ops.explain import MOST_JOBS, Question
from pipeline.ops.explain_layout import layout
from pipeline.ops.explain_text import lines
from tests.ops.explain_world import DELIVERED, FIRST, TELL, WORK, Site
from tests.runtime.world import Decoder, Script

pytestmark = pytest.mark.virtual


async def test_a_completed_job_is_told_from_its_request_to_its_delivery() -> None:
    """Each record of the job is a moment, in order of time, with who wrote it; nothing is waited for any more."""
    site = await Site.make()
    await site.start(FIRST)
    await site.start(WORK, **{"hello!": [[DELIVERED]]})
    site.ask("hello")
    await site.world.until(lambda: site.end("t.deliveries"))
    await site.world.settle()
    story = await site.story(site.job())
    await site.world.stop()
    assert story.status == "delivered"
    assert [(one.what, one.stage) for one in story.moments] == [
        ("request", ""),
        ("in", "first"),
        ("delivery", "work"),
    ]
    assert "delivered to crm, job.completed, status 200" in story.moments[-1].text
    assert story.waits == ()
    assert story.remarks == ()


async def test_a_job_is_found_by_its_trace_and_by_its_webhook_as_well() -> None:
    """Whatever id a person has in hand, it leads to the same story."""
    site = await Site.make()
    await site.start(FIRST)
    await site.start(WORK, **{"hello!": [[DELIVERED]]})
    site.ask("hello")
    await site.world.until(lambda: site.end("t.deliveries"))
    await site.world.settle()
    (prompt,) = site.world.records("t.in")
    read = h.texts(prompt.headers)
    whole = await site.story(site.job())
    for identity in (read[h.CE_ID], read[h.TRACEPARENT], read[h.TRACEPARENT].split("-")[1].upper(), f" {site.job()}\n"):
        assert (await site.story(identity)).moments == whole.moments, identity
    await site.world.stop()


async def test_nothing_is_known_of_an_id_that_nothing_has() -> None:
    """There is no story then, and no error; nor where it is empty."""
    site = await Site.make()
    site.ask("hello")
    assert (await site.answer("nobody")).stories == ()
    assert (await site.answer("  ")).stories == ()


async def test_what_waits_for_a_stage_that_does_not_run_is_told_with_its_place_in_the_line() -> None:
    """Records before it are counted, and that nobody works on them is said."""
    site = await Site.make(partitions=1)
    site.ask("a", "1")
    site.ask("b", "2")
    await site.start(FIRST)
    await site.world.until(lambda: site.end("t.in") == 2)
    await site.world.settle()
    last = h.texts(site.world.records("t.in")[-1].headers)[h.CE_SUBJECT]
    story = await site.story(last)
    await site.world.stop()
    assert story.status == "waiting"
    (wait,) = story.waits
    assert (wait.stage, wait.where, wait.before) == ("work", "in:0@1", 1)
    assert wait.why == ("1 record before it", "no worker of work runs")


async def test_a_job_that_waits_in_a_tier_tells_until_when_and_what_went_wrong_how_often() -> None:
    """A failed attempt and a deferral are told apart by what their copies count; each says why it came to it."""
    site = await Site.make()
    await site.start(FIRST)
    await site.start(WORK, **{"a!": [Retry("no"), Defer("later", until=wall() + 45), [DELIVERED]]})
    site.ask("a")
    await site.world.until(lambda: site.world.tiers("work")["10s"] == 2)
    await site.world.settle()
    story = await site.story(site.job())
    retries = [one.text for one in story.moments if one.what == "retry"]
    assert [(one.partition(";")[0], one.partition(": ")[2]) for one in retries] == [
        ("failed", "retry: no"),
        ("deferred", "defer: later"),
    ]
    (wait,) = story.waits
    assert story.status == "waiting"
    assert wait.until_ms > wall() * 1000
    assert wait.why[0].startswith("it waits until 20")
    assert wait.why[0].endswith("more, because of defer: later")
    await site.world.until(lambda: site.world.tiers("work")["10s"] == 3)
    await site.world.settle()
    last = (await site.story(site.job())).moments[-1].text
    await site.world.stop()
    assert last.startswith("not due yet; waits in 10s")
    assert last.endswith(": defer: later")


async def test_a_dead_job_names_the_letter_its_reason_and_its_state() -> None:
    """Without a word about it a dead letter is open; the state topic may say otherwise, and the audit who did what."""
    site = await Site.make()
    await site.start(FIRST)
    await site.start(WORK, **{"a!": [Reject("we cannot", code="bug_7")]})
    await site.start(TELL, Failure=[[DELIVERED.model_copy(update={"kind": "job.failed"})]])
    site.ask("a")
    await site.world.until(lambda: site.end("t.deliveries"))
    await site.world.settle()
    (record,) = site.letters()
    story = await site.story(letter_id(record))
    assert story.status == "dead"
    (letter,) = story.letters
    assert (letter.id, letter.stage, letter.state) == (letter_id(record), "work", "open")
    assert "bug_7: we cannot" in letter.text
    assert {"dead letter", "recoverable failure", "delivery"} <= {one.what for one in story.moments}

    assigned = Letter(state="assigned", operator="bob", assignee="ann", at_ms=int(wall() * 1000))
    site.say("letters", letter.id, assigned)
    site.say("audit", letter.id, Audit(action="letter.assigned", subject=letter.id, operator="bob", at_ms=1))
    site.say("audit", "other", Audit(action="letter.assigned", subject="another", operator="eve", at_ms=1))
    story = await site.story(site.job())
    await site.world.stop()
    assert story.status == "dead"
    assert story.letters[0].state == "assigned"
    assert "assigned to ann by bob" in story.letters[0].text
    assert [one.text for one in story.moments if one.what == "letter.assigned"] == [f"{letter.id} by bob"]


@pytest.mark.parametrize("state", ["resolved", "purged"])
async def test_a_dead_letter_that_is_done_with_leaves_the_job_failed(state: str) -> None:
    """Its owner was told of the failure, and no person has to look at it any more."""
    site = await Site.make()
    await site.start(FIRST)
    await site.start(WORK, **{"a!": [Reject("we cannot")]})
    site.ask("a")
    await site.start(TELL, Failure=[[]])
    await site.world.until(site.letters)
    await site.world.settle()
    site.say("letters", letter_id(site.letters()[0]), Letter(state=state, at_ms=1))  # type: ignore[arg-type]  # it is one
    assert (await site.story(site.job())).status == "failed"
    await site.world.stop()


async def test_a_replay_is_told_with_its_id_and_the_dead_letter_counts_as_replayed() -> None:
    """The copy's headers say which letter came back, by which replay and as which run; the job goes on from there."""
    site = await Site.make()
    await site.start(FIRST)
    await site.start(WORK, **{"a!": [Reject("we cannot"), [DELIVERED]]})
    site.ask("a")
    await site.world.until(site.letters)
    await site.world.settle()
    (record,) = site.letters()
    replay = Audit(action="replay.started", subject="replay-1", operator="ann", at_ms=int(wall() * 1000) - 1)
    site.say("audit", "replay-1", replay)
    site.copy(record, letter_id(record), "replay-1", **{h.REPLAY_RUN: "1"})
    await site.world.until(lambda: site.end("t.deliveries"))
    await site.world.settle()
    story = await site.story(site.job())
    await site.world.stop()
    told = [one.what for one in story.moments]
    assert told.index("dead letter") < told.index("replay.started") <= told.index("replay") < told.index("delivery")
    assert "replay replay-1, count 1, run 1" in next(one.text for one in story.moments if one.what == "replay")
    assert [letter.state for letter in story.letters] == ["replayed"]
    assert story.about["runs"] == [0, 1]
    assert [one.stage for one in story.waits] == ["tell"]
    assert story.moments[-1].text.startswith("delivered")


async def test_a_replay_that_waits_is_due_at_once() -> None:
    """What was brought back leaves its tier when it is written, so it does not wait for the tier's delay."""
    site = await Site.make()
    await site.start(FIRST)
    await site.start(WORK, **{"a!": [Reject("we cannot")]})
    site.ask("a")
    await site.world.until(site.letters)
    await site.world.settle()
    await site.world.stop()
    (record,) = site.letters()
    site.copy(record, letter_id(record), "replay-1")
    wait = next(one for one in (await site.story(site.job())).waits if one.kind == "retry")
    assert wait.until_ms == 0
    assert wait.why == ("no worker of work runs",)


async def test_a_cancellation_is_a_moment_and_what_the_job_waits_for_ends_by_it() -> None:
    """It is told when and by whom the job was cancelled, though no stage has looked at it since."""
    site = await Site.waiting()
    until = int((wall() + CANCEL_SECONDS) * 1000)
    site.control(f"cancel/{site.job()}", state="cancelled", job=site.job(), expires_at_ms=until, reason="a mistake")
    site.control("cancel/other", state="cancelled", job="other", expires_at_ms=until)
    story = await site.story(site.job())
    await site.world.stop()
    assert story.moments[-1].text == f"job {site.job()} by bob: a mistake"
    assert "it is cancelled by bob, which ends it as soon as it is looked at" in story.waits[0].why


async def test_a_failed_job_says_why() -> None:
    """A failure is the request's own: its code and reason are told, and that its owner has still to hear of it."""
    site = await Site.make()
    await site.start(FIRST)
    await site.start(WORK, **{"a!": [Fail("no such thing", code="unknown_thing")]})
    site.ask("a")
    await site.world.until(lambda: site.end("t.failures"))
    await site.world.settle()
    story = await site.story(site.job())
    await site.world.stop()
    assert story.status == "waiting"
    assert [one.stage for one in story.waits] == ["tell"]
    assert story.moments[-1].text == "unknown_thing: no such thing"
    assert story.moments[-1].stage == "work"


async def test_a_request_that_was_sent_twice_is_told_as_such() -> None:
    """A second request with the same id is the same job, and what came of it says nothing new."""
    site = await Site.make(partitions=1)
    await site.start(FIRST)
    await site.start(WORK, **{"a!": [[DELIVERED], [DELIVERED]]})
    site.ask("a")
    site.ask("a")
    await site.world.until(lambda: site.end("t.deliveries") == 2)
    await site.world.settle()
    job = h.texts(site.world.records("t.in")[0].headers)[h.CE_SUBJECT]
    story = await site.story(job)
    await site.world.stop()
    assert [one.where for one in story.moments if one.again] == ["open:0@1", "in:0@1", "deliveries:0@1"]
    assert "open:0@1 says again what another request says: the first one counts" in story.remarks
    assert story.status == "delivered"


async def test_a_request_that_cannot_be_decoded_is_found_and_told_with_the_reason() -> None:
    """Its job is named as the runtime names it, by its place, so its dead letter and failure are of the same job."""
    site = await Site.make()
    await site.start(FIRST)
    site.world.write(b"junk", topic="t.open")
    await site.world.until(lambda: site.end("t.failures"))
    await site.world.settle()
    (failure,) = site.world.records("t.failures")
    story = await site.story(h.texts(failure.headers)[h.CE_SUBJECT])
    await site.world.stop()
    assert [one.what for one in story.moments] == ["request", "dead letter", "recoverable failure"]
    assert "cannot be decoded: cannot decode the value as open" in story.moments[0].text
    assert story.letters[0].stage == "first"


async def test_a_trace_of_several_jobs_tells_of_each() -> None:
    """A caller's trace may have led to several requests: each has its story; of very many the first are told."""
    site = await Site.make(partitions=1)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for number in range(MOST_JOBS + 1):
        headers = {h.CE_ID: str(number), h.CE_SOURCE: "test", h.TRACEPARENT: trace}
        site.world.put("a", topic="t.open", headers=headers)
    answer = await site.answer(trace)
    assert len(answer.stories) == MOST_JOBS
    assert answer.remarks == (
        f"the id is of {MOST_JOBS + 1} jobs: the first {MOST_JOBS} are told of; ask for the others by their own ids",
    )


async def test_topics_and_partitions_that_are_missing_are_said() -> None:
    """The rest is told all the same; of a pipeline without any topic the prefix is asked for."""
    site = await Site.waiting()
    await site.world.stop()
    await site.world.broker.delete_topics(["t.audit", "t.control", "t.work.dlq"])
    answer = await site.answer(site.job())
    assert [story.status for story in answer.stories] == ["waiting"]
    assert answer.remarks == (
        "what is not there cannot be told of: t.work.dlq, t.control, t.audit (`pipeline topics create` makes them)",
    )
    empty = Site(type(site.world)(1))
    assert "PIPELINE_TOPIC_PREFIX" in (await empty.answer("x")).remarks[0]


class Closed:
    """A broker that does not tell of one group where it stands, and of none who its members are."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def commits(self, group: str, topics: Iterable[str]) -> Mapping[Partition, Commit]:
        """Refuse one."""
        if group == "t.first":
            raise PermissionError("not authorized")
        return await self.broker.commits(group, topics)

    async def members(self, group: str) -> Collection[str]:
        """Refuse all."""
        raise PermissionError("not authorized")


async def test_a_group_that_may_not_be_looked_at_is_said() -> None:
    """The records are told all the same; only whether they wait for that stage is not known."""
    site = await Site.make()
    site.ask("a")
    offsets: Any = Closed(site.world.broker)
    answer = await replace(site.explainer(), offsets=offsets).answer(Question(job_id("default", "test", "one")))
    (told,) = answer.remarks
    assert told.startswith("where the group of first stands cannot be told, nor what waits for it: PermissionError")
    assert [len(story.moments) for story in answer.stories] == [1]
    assert answer.stories[0].waits == ()


async def test_a_change_of_a_foreign_topic_is_explained_by_its_place() -> None:
    """Its job is named as the runtime names it, so its dead letter and failure are found by it; it is not decoded."""
    site = await Site.make()
    await site.world.create("app.notes")
    decoder = Decoder("app.notes", bad=[Reject("no such column")])
    await site.world.start(Script(), FIRST, foreign=decoder)
    change = site.world.write(b"bad", topic="app.notes", headers={h.CE_ID: "not meant for us"})
    await site.world.until(lambda: site.end("t.failures"))
    await site.world.settle()
    await site.world.stop()
    explainer = site.explainer(layout("t", (FIRST, WORK, TELL), {"first": ["app.notes"]}))
    (story,) = (await explainer.answer(Question(positional_job_id(change)))).stories
    assert [one.what for one in story.moments] == ["foreign", "dead letter", "recoverable failure"]
    assert story.moments[0].text == "open, 3 bytes"
    assert story.remarks == ()


async def test_what_is_not_kept_any_more_is_said() -> None:
    """Retention takes the beginning of old stories; what is left names what it came of."""
    site = await Site.make(partitions=1)
    await site.start(FIRST)
    site.ask("a")
    await site.world.until(lambda: site.end("t.in"))
    await site.world.settle()
    await site.world.stop()
    site.world.broker.trim(Partition("t.open", 0), 1)
    story = await site.story(site.job())
    assert story.remarks == ("open:0@0, of which 1 record here came, is not kept any more, or was not read",)


async def test_since_leaves_out_what_is_older_with_an_hour_of_margin() -> None:
    """The clocks of writers differ, so an hour more is read than was asked for."""
    site = await Site.waiting()
    await site.world.stop()
    now = int(wall() * 1000)
    assert (await site.answer(site.job(), since_ms=now + 3_000_000)).stories
    assert not (await site.answer(site.job(), since_ms=now + 4_000_000)).stories


async def test_payloads_are_shown_only_where_that_is_asked_for() -> None:
    """What people wrote may be nobody else's business: of it a story has the sizes."""
    site = await Site.make()
    site.ask("a secret")
    await site.start(FIRST)
    await site.world.until(lambda: site.end("t.in"))
    await site.world.settle()
    await site.world.stop()
    assert not any("secret" in line for line in lines(await site.story(site.job())))
    assert any("text = a secret" in line for line in lines(await site.story(site.job(), show_payload=True)))
