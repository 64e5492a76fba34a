"""The journal and the proofs drawn from it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.devkit.simulator_journal import Asked, Journal, RunningCall, overlapping_keys, share_of_time
from pipeline.devkit.simulator_wire import Usage
from tests.examples import at_most

_OK = (200, "ok", Usage(3, 4))


def test_a_call_is_noted_from_start_to_end() -> None:
    """A finished call carries its times, what was asked, how many ran, and how it ended."""
    journal = Journal()
    running = journal.start(1.0, Asked("m", "k", "u", "abc", stream=True, question="q"))
    journal.finish(3.5, running, *_OK)
    assert [call.record() for call in journal.calls] == [
        {
            "index": 0,
            "started": 1.0,
            "finished": 3.5,
            "status": 200,
            "model": "m",
            "key": "k",
            "user": "u",
            "input_hash": "abc",
            "stream": True,
            "question": "q",
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
            "in_flight": 1,
            "outcome": "ok",
        }
    ]


def test_events_show_how_many_ran() -> None:
    """Each start and end carries the count after it; calls are listed in the order in which they started."""
    journal = Journal()
    first, second = journal.start(0.0, Asked(key="a")), journal.start(1.0, Asked(key="b"))
    journal.finish(2.0, second, *_OK)
    journal.finish(3.0, first, *_OK)
    assert [(event.at, event.what, event.key, event.in_flight) for event in journal.events] == [
        (0.0, "start", "a", 1),
        (1.0, "start", "b", 2),
        (2.0, "end", "b", 1),
        (3.0, "end", "a", 0),
    ]
    assert [call.key for call in journal.calls] == ["a", "b"]
    assert journal.max_in_flight == 2


def test_a_reset_forgets_what_is_over_and_keeps_what_runs() -> None:
    """A call that runs through a reset is noted when it ends, under its own index."""
    journal = Journal()
    journal.finish(1.0, journal.start(0.0, Asked()), *_OK)
    running = journal.start(2.0, Asked())
    journal.reset()
    assert (journal.calls, journal.events, journal.in_flight, journal.max_in_flight) == ((), (), 1, 1)
    journal.finish(3.0, running, *_OK)
    assert [call.index for call in journal.calls] == [1]


def test_the_journal_forgets_the_oldest() -> None:
    """Over its capacity the journal keeps the newest calls, so that a long run needs no more memory."""
    journal = Journal(capacity=2)
    for at in range(5):
        journal.finish(at, journal.start(at, Asked()), *_OK)
    assert [call.index for call in journal.calls] == [3, 4]
    assert len(journal.events) == 4


def test_two_calls_of_a_key_at_once_are_found() -> None:
    """A call that starts before the last one of its key has ended overlaps; one that starts at that moment does not."""
    journal = Journal()
    one, other = journal.start(0.0, Asked(key="a")), journal.start(0.0, Asked(key="b"))
    journal.finish(1.0, one, *_OK)
    two = journal.start(1.0, Asked(key="a"))
    overlap = journal.start(1.5, Asked(key="b"))
    for running in (other, two, overlap, journal.start(2.0, Asked()), journal.start(2.0, Asked())):
        journal.finish(3.0, running, *_OK)
    assert overlapping_keys(journal.calls) == ("b",)
    assert overlapping_keys(journal.calls, lambda call: "one") == ("one",)


def test_the_share_of_time_at_a_level_ends_with_the_last_start() -> None:
    """Two calls run for three of the four seconds between the first and the last start."""
    journal = Journal()
    a, b = journal.start(0.0, Asked()), journal.start(1.0, Asked())
    journal.finish(4.0, a, *_OK)
    c = journal.start(4.0, Asked())
    journal.finish(9.0, b, *_OK)
    journal.finish(9.0, c, *_OK)
    assert share_of_time(journal.events, 1) == 1.0
    assert share_of_time(journal.events, 2) == pytest.approx(0.75)
    assert share_of_time(journal.events, 3) == 0.0
    assert share_of_time((), 1) == 0.0


@settings(max_examples=at_most(40))
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.floats(0, 2)), max_size=40))
def test_counts_always_agree(steps: list[tuple[bool, str, float]]) -> None:
    """Whatever starts and ends, the counts in the events follow each other by one and every call is noted once."""
    journal, running, now = Journal(), list[RunningCall](), 0.0
    for begins, key, later in steps:
        now += later
        if begins or not running:
            running.append(journal.start(now, Asked(key=key)))
        else:
            journal.finish(now, running.pop(0), *_OK)
    levels = [event.in_flight for event in journal.events]
    changes = [1 if event.what == "start" else -1 for event in journal.events]
    assert levels == [sum(changes[: place + 1]) for place in range(len(changes))]
    assert journal.max_in_flight == max(levels, default=0)
    assert len(journal.calls) + journal.in_flight == changes.count(1)
    shares = [share_of_time(journal.events, level) for level in range(5)]
    assert shares == sorted(shares, reverse=True)
    assert all(0 <= share <= 1 + 1e-9 for share in shares)
