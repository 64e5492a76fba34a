"""How many letters came in a minute; following them is tested by the command line's tests."""

from __future__ import annotations

from dataclasses import replace

from pipeline.core.letter import read_head
from pipeline.core.letter_state import OPEN
from pipeline.ops.letter_watch import Minutes
from pipeline.ops.letters import Found
from tests.core.test_letter import GRAVE, dead


def test_a_minute_is_told_when_it_is_over() -> None:
    """By stage, the most first; the next one begins at nothing, also where nobody looked for a while."""
    minutes = Minutes(1_000)
    infer, index = (dead(grave=replace(GRAVE, stage=stage)) for stage in ("infer", "index"))
    minutes.add([Found(one, read_head(one), OPEN) for one in (infer, index, index)])
    assert None is minutes.over(60_999)
    assert {"index": 2, "infer": 1} == minutes.over(61_000)
    assert {} == minutes.over(200_000)
    assert None is minutes.over(240_999)
    assert {} == minutes.over(241_000)
