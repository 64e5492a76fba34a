"""What is kept of answers, and for how long."""

from __future__ import annotations

from pipeline.core.offset_map import NOTHING, Progress, mark
from pipeline.core.record import Commit, Partition
from pipeline.runtime.answers import MARK_SECONDS, Answers, Recent

OUT = Partition("out", 0)


def answers(frontier: int = 0, former: Progress = NOTHING) -> Answers[str]:
    """The answers of a partition that was assigned at `frontier` and has caught up."""
    made: Answers[str] = Answers(Commit(frontier), former, [OUT])
    made.caught_up = True
    return made


def test_recent_ids_are_bounded() -> None:
    """The oldest go first; one that is heard again is new again."""
    recent: Recent[int] = Recent(3)
    for key in (1, 2, 3, 1, 4):
        recent.add(key)
    assert ([key for key in range(6) if key in recent], len(recent)) == ([1, 3, 4], 3)
    recent.discard(3)
    recent.discard(9)
    assert 3 not in recent


def test_what_is_settled_is_forgotten() -> None:
    """Below the frontier and in the map nothing is kept: memory follows what is not committed, not what was read."""
    known = answers(10)
    for offset in range(1_000):
        known.hear(offset, (0, 1), (OUT, offset))
    assert (len(known), known.has(9, 0), known.has(10, 0)) == (990, False, True)
    known.progress(500, (range(600, 990),), {OUT: 1_000}, 0.0)
    assert len(known) == 110
    assert [offset for offset in (499, 500, 599, 600, 989, 990) if known.has(offset, 0)] == [500, 599, 990]


def test_marks_stay_below_what_is_needed() -> None:
    """All that was read is passed, but for the first answer that still settles something."""
    known = answers()
    known.hear(5, (0, 1), (OUT, 70))
    assert known.progress(3, (), {OUT: 100}, 0.0).followed == {mark("out"): 70}
    assert known.progress(6, (), {OUT: 100}, 0.0).followed == {mark("out"): 100}


def test_marks_alone_are_renewed_now_and_then() -> None:
    """Reading on is no reason for a commit each time."""
    known = answers()
    first = known.progress(3, (), {OUT: 100}, 0.0)
    assert known.progress(3, (), {OUT: 200}, MARK_SECONDS - 1) == first
    assert known.progress(3, (), {OUT: 200}, MARK_SECONDS).followed == {mark("out"): 200}


def test_until_it_has_caught_up_it_passes_on_what_it_was_told() -> None:
    """An owner that goes before it has read anything leaves the word of its predecessor."""
    former = Progress((), (4,), 99, {mark("out"): 42})
    known: Answers[str] = Answers(Commit(3), former, [OUT])
    assert known.progress(3, (), {OUT: 100}, 0.0) == former


def test_parts_of_an_answer_count_together() -> None:
    """One of two, twice, is not both."""
    known = answers()
    assert not known.hear(1, (0, 2), (OUT, 1))
    assert not known.hear(1, (0, 2), (OUT, 2))
    assert known.hear(1, (1, 2), (OUT, 3))


def test_another_record_at_the_same_place_is_not_settled() -> None:
    """The topic was deleted and made again: what answers its old records says nothing of its new ones."""
    known = answers()
    assert known.hear(1, (0, 1), (OUT, 1), 500)
    assert (known.has(1, 500), known.has(1, 600)) == (True, False)
    assert not known.hear(1, (0, 2), (OUT, 2), 600)
    assert known.hear(1, (1, 2), (OUT, 3), 600)
    assert (known.has(1, 600), len(known)) == (True, 2)
    known.progress(2, (), {OUT: 4}, 0.0)
    assert len(known) == 0
