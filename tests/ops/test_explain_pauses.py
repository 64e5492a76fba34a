"""Pauses in the story of a job: those in force, and those that are over."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.devkit.clock import wall
from pipeline.ops.words import when
from tests.ops.explain_world import DELIVERED, FIRST, WORK, Site

pytestmark = pytest.mark.virtual


async def test_pauses_that_hold_the_job_are_named_with_who_said_so_and_since_when() -> None:
    """Only those that concern it: of its stage and its tenant, and not of others."""
    site = await Site.waiting()
    site.control("pause/stage/work", state="paused", stage="work", reason="too dear")
    site.control("pause/stage/first", state="paused", stage="first", reason="not this one")
    site.control("pause/tenant/acme", state="paused", tenant="acme", reason="nor this one")
    site.control("no key of its own", state="paused", stage="work", reason="junk changes nothing")
    story = await site.story(site.job())
    await site.world.stop()
    (wait,) = story.waits
    (pause,) = [why for why in wait.why if why.startswith("paused")]
    assert pause.startswith("paused by bob since 20")
    assert pause.endswith("(too dear)")


async def test_a_pause_that_is_over_is_told_where_the_job_had_to_wait_for_it() -> None:
    """The audit knows it: who said it and why, until when it was, and how long the job waited at most."""
    site = await Site.waiting()
    began = int(wall() * 1000)
    site.audited("paused", "pause/stage/work", reason="too dear")
    site.audited("paused", "pause/stage/first", reason="it was through that already")
    site.audited("paused", "pause/tenant/acme", reason="somebody else")
    site.audited("paused", "junk", reason="no pause is called so")
    await asyncio.sleep(90)
    site.audited("resumed", "pause/stage/work")
    site.audited("resumed", "pause/stage/work")
    await site.start(WORK, **{"a!": [[DELIVERED]]})
    await site.world.until(lambda: site.end("t.deliveries"))
    await site.world.settle()
    await asyncio.sleep(90)
    site.audited("paused", "pause/all", reason="too late to matter")
    story = await site.story(site.job())
    await site.world.stop()
    (paused,) = [one for one in story.moments if one.what == "paused"]
    assert (paused.stage, paused.at_ms) == ("work", began)
    assert paused.text == (
        f"stage work since {when(began)} until {when(began + 90_000)} by bob (too dear);"
        " the job waited for it for up to 1 min 30 s"
    )


async def test_a_pause_in_force_is_told_in_the_timeline_as_well() -> None:
    """A record that came after it waits from then on; the word stands where the wait began."""
    site = await Site.make()
    site.audited("paused", "pause/stage/work/tenant/default")
    await asyncio.sleep(60)
    await site.start(FIRST)
    site.ask("a")
    await site.world.until(lambda: site.end("t.in"))
    await site.world.settle()
    await asyncio.sleep(30)
    story = await site.story(site.job())
    await site.world.stop()
    (paused,) = [one for one in story.moments if one.what == "paused"]
    assert paused.at_ms == next(one.at_ms for one in story.moments if one.what == "in")
    assert " and still by bob; the job waited for it for up to 3" in paused.text
