"""Letters that are replayed to stages that run: what becomes of them there."""

from __future__ import annotations

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Reject
from pipeline.core.job import child_id
from pipeline.core.letter import letter_id, read_head
from pipeline.core.record import Record
from pipeline.core.replay import Rules
from pipeline.devkit.clock import wall
from pipeline.ops.replay import Replays, group
from pipeline.ops.replay_letters import Known
from pipeline.ops.replay_plan import Plan, Wanted
from pipeline.ops.replay_run import Report
from tests.ops.explain_world import DELIVERED, FIRST, WORK, Site
from tests.ops.replay_world import ANN, CATALOG

pytestmark = pytest.mark.virtual


async def replays(site: Site) -> Replays:
    """Open replays of the stages `first` and `work`."""
    broker, stages = site.world.broker, {one.name: one for one in (FIRST, WORK)}
    counts = await broker.partitions_under("t.")
    known = Known("t", stages, CATALOG, site.world.codec, wall, partitions=counts)
    first, second = broker.reader(committed=True), broker.reader(committed=True)
    return Replays(known, first, second, broker.transactions(group("t"), group("t")), "me", print)


async def plan(site: Site, rules: Rules) -> Plan:
    """Make a plan."""
    return await (await replays(site)).plan(rules, Wanted(), lambda *_: None)


async def replay(site: Site, rules: Rules) -> Report:
    """Plan and execute."""
    opened = await replays(site)
    return await opened.execute(await opened.plan(rules, Wanted(), lambda *_: None), Wanted(), ANN, 100.0)


async def dead(site: Site, *answers: object) -> Record:
    """Start both stages, and have the request `a` die at the second one; its next tries come to `answers`."""
    await site.start(FIRST)
    await site.start(WORK, **{"a!": [Reject("we cannot"), *answers]})
    site.ask("a")
    await site.world.until(site.letters)
    await site.world.settle()
    (letter,) = site.letters()
    return letter


async def test_what_goes_back_is_handled_at_once() -> None:
    """Not after its tier's delay; its answer has the ids that it would have had, and its trace."""
    site = await Site.make()
    letter = await dead(site, [DELIVERED])
    begun = wall()
    assert (await replay(site, Rules("r1"))).replayed == 1
    await site.world.until(lambda: site.end("t.deliveries"))
    assert wall() - begun < 3.0
    await site.world.stop()
    (answer,) = site.world.records("t.deliveries")
    told, was = h.texts(answer.headers), h.texts(letter.headers)
    assert child_id(was[h.CE_ID], "work", 0, 0) == told[h.CE_ID]
    assert was[h.TRACEPARENT].split("-")[1] == told[h.TRACEPARENT].split("-")[1]
    assert not [name for name in told if name.startswith(h.REPLAY)]


async def test_another_run_has_another_answer() -> None:
    """Its ids are new, so a webhook of it is a new one; so it is when the job begins at an earlier stage."""
    site = await Site.make()
    letter = await dead(site, [DELIVERED])
    assert (await replay(site, Rules("r1", source="first"))).replayed == 1
    await site.world.until(lambda: site.end("t.deliveries"))
    await site.world.stop()
    (answer,) = site.world.records("t.deliveries")
    assert h.texts(answer.headers)[h.RUN] == "1"
    assert h.texts(answer.headers)[h.CE_SUBJECT] == h.texts(letter.headers)[h.CE_SUBJECT]
    first, second = (h.texts(one.headers)[h.CE_ID] for one in site.world.records("t.in"))
    assert first != second


async def test_what_dies_again_leads_to_its_former_life() -> None:
    """The new letter names the old one and the replay; the guard keeps it from going round and round."""
    site = await Site.make()
    letter = await dead(site, Reject("we cannot"))
    await replay(site, Rules("r1"))
    await site.world.until(lambda: len(site.letters()) == 2)
    await site.world.stop()
    again = read_head(next(one for one in site.letters() if one.position != letter.position))
    assert (letter_id(letter), "r1", 1) == (again.former, again.replay_id, again.replays)
    assert dict((await plan(site, Rules("r2"))).tally.refused) == {"replayed": 1, "loop": 1}
