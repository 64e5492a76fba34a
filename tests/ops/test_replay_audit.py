"""Replays that are gone on with, from what the audit has kept of them."""

from __future__ import annotations

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.patch import Patch
from pipeline.core.payloads import Audit
from pipeline.core.replay import Rules
from pipeline.ops.replay_audit import MOST_NAMED, asked_before, details_of
from pipeline.ops.replay_plan import Wanted
from tests.ops.replay_world import ANN, CODEC, Site

pytestmark = pytest.mark.virtual
RULES = Rules("r1", again=True, most=9, extend=60.0, patch=Patch(model="gpt-4o-mini"), source="retrieve")


async def test_what_was_asked_for_is_found_again() -> None:
    """Rules, filter, limit and where the topics ended."""
    site = await Site.make()
    head = await site.bury(1)
    replays = await site.replays()
    wanted = Wanted(LetterFilter(stages=("infer",), since_ms=5, letters=frozenset({head.id})), 7)
    plan = await replays.plan(RULES, wanted, lambda *_: None)
    audit = Audit(action="replay.started", subject="r1", at_ms=1, details=details_of(plan, wanted))
    rules, found = asked_before(audit)
    assert RULES == rules
    assert (["infer"], 5, [head.id], 7, plan.ends) == (
        found.filter.stages,
        found.filter.since_ms,
        found.filter.letters,
        found.limit,
        found.ends,
    )


async def test_a_replay_without_a_terminal() -> None:
    """Planned, executed, and found again by its id; others are not."""
    site = await Site.make()
    await site.bury(1)
    replays = await site.replays()
    rules, wanted = Rules("r1"), Wanted()
    report = await replays.execute(await replays.plan(rules, wanted, lambda *_: None), wanted, ANN, 1000.0)
    assert (1, "1") == (report.replayed, (await replays.earlier("r1")).details["going"])
    with pytest.raises(ConfigurationError, match=r"--resume r2: p\.audit tells of no replay of this id"):
        await replays.earlier("r2")


async def test_a_long_list_has_to_be_given_again() -> None:
    """A file's letters are too many for the audit: their number is kept, and held against the file."""
    site = await Site.make()
    names = frozenset(f"letter-{number}" for number in range(MOST_NAMED + 1))
    wanted = Wanted(LetterFilter(letters=names))
    plan = await site.plan(Rules("r1"), wanted)
    audit = Audit(action="replay.started", subject="r1", at_ms=1, details=details_of(plan, wanted))
    assert len(await CODEC.encode("audit", audit)) < 2_000
    with pytest.raises(ConfigurationError, match="replay r1 was of 1001 letters in a file: give the same --file"):
        asked_before(audit)
    assert asked_before(audit, names)[1].filter.letters == names


@pytest.mark.parametrize("details", [{}, {"filter": "[]", "rules": "{}"}, {"filter": "{", "rules": "{}"}])
def test_what_another_version_has_kept(details: dict[str, str]) -> None:
    """It is not guessed at."""
    with pytest.raises(ConfigurationError, match="replay r1 was started by another version of this program"):
        asked_before(Audit(action="replay.started", subject="r1", at_ms=1, details=details))
