"""Whether a commit says all that it has to, which is asked before anything is written exactly once."""

from __future__ import annotations

import random

from pipeline.core.offset_map import Progress, spell
from pipeline.core.record import Commit
from pipeline.runtime.once import SURE_RANGES, says


def test_a_map_that_had_no_room_for_all_does_not_say_it() -> None:
    """Of as many ranges as are not asked about none is left out; of far more the last are missing."""
    chance = random.Random(7)
    starts = sorted(chance.sample(range(1_000, 1_000_000_000, 1_000), 9_000))
    many = tuple(range(start, start + chance.randrange(1, 999)) for start in starts)
    few = many[:SURE_RANGES]
    assert says(Commit(5, spell(5, Progress(few))), few)
    assert not says(Commit(5, spell(5, Progress(many))), many)
