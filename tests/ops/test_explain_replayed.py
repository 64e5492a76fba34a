"""Dead letters of the whole pipeline that a replay has brought back, explained."""

from __future__ import annotations

import pytest

from pipeline.core import headers as h
from pipeline.core.patch import Patch
from pipeline.core.replay import Rules
from pipeline.devkit.clock import wall
from pipeline.ops.explain import Explainer, Question
from pipeline.ops.explain_layout import layout
from pipeline.ops.explain_story import Story
from pipeline.topology import STAGES
from tests.ops.replay_world import CODEC, PREFIX, Site

pytestmark = pytest.mark.virtual


async def story(site: Site, identity: str) -> Story:
    """Ask for the one job of an id."""
    reader = site.broker.reader(committed=True)
    explainer = Explainer(layout(PREFIX, STAGES), reader, site.broker, CODEC, wall, endpoint_of=lambda _: "main")
    (one,) = (await explainer.answer(Question(identity))).stories
    return one


async def test_the_story_of_a_replay_says_who_brought_what_back_and_why() -> None:
    """The letter's state, the audit of the replay and the copy meet in one story, whichever id was asked for."""
    site = await Site.make()
    head = await site.bury(1)
    await site.bury(2)
    await site.replay(Rules("r1"))
    told = await story(site, head.id)
    assert told.job == "job-1"
    assert told.status == "waiting"
    assert [(one.stage, one.why) for one in told.waits] == [("infer", ("no worker of infer runs",))]
    texts = {one.what: one.text for one in told.moments}
    assert texts["contexts.standard"].endswith("bytes")
    assert "model_500: it is down" in texts["dead letter"]
    assert texts["replay.started"].startswith("r1 by ann: the model is back")
    assert texts["replay.finished"].startswith("r1 by ann: the model is back (replayed 2, quarantined 0")
    assert texts["replayed"] == f"letter {head.id} by ann: the model is back (replay r1, replays 1)"
    assert "replay r1, count 1" in texts["replay"]
    assert [letter.state for letter in told.letters] == ["replayed"]


async def test_a_patched_replay_is_told_as_the_next_run_of_the_job() -> None:
    """Its event has another id, as the runtime gives it, and the run is named."""
    site = await Site.make()
    await site.bury(1)
    await site.replay(Rules("r1", patch=Patch(max_output_tokens=77)))
    told = await story(site, "job-1")
    assert told.about["runs"] == [0, 1]
    copy = next(one.fact for one in told.moments if one.what == "replay")
    first = next(one.fact for one in told.moments if one.what == "contexts.standard")
    assert copy is not None
    assert first is not None
    assert (copy.job.run, copy.replay["run"], copy.event != first.event) == (1, "1", True)
    assert '"max_output_tokens": 77' in h.unquoted(copy.replay["patch"])
    assert "rerun" in {one.what for one in told.moments}


async def test_a_letter_that_comes_back_dead_is_open_though_its_former_life_was_replayed() -> None:
    """Each life of a dead letter has its own state."""
    site = await Site.make()
    await site.bury(1)
    await site.replay(Rules("r1"))
    (copy,) = site.back()
    await site.bury(9)
    dead = (*copy.headers, (f"{h.DEAD}stage", b"infer"), (f"{h.DEAD}code", b"model_500"))
    site.lay("infer", copy, dead)
    told = await story(site, "job-1")
    assert [letter.state for letter in told.letters] == ["replayed", "open"]
    assert told.status == "dead"
