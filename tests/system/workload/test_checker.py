"""The checker finds each kind of broken promise in a forged history, and nothing in a right one."""

from __future__ import annotations

from typing import get_args

import pytest

from pipeline.core import headers as h
from pipeline.core.record import Commit, Outgoing, Partition
from tests.system.workload.forge import NOW, Forge, having, without
from tests.system.workload.history import Sample
from tests.system.workload.notes import CARRIED, Script
from tests.system.workload.variants import Promise, Variant

A, B, C = "p0-k0-000000", "p0-k0-000001", "p0-k0-000002"

OUTPUTS: tuple[Script, ...] = ("plain", "retry", "error", "defer")


def _strict(promise: Promise = "at least once") -> Forge:
    return Forge(Variant("work", promise=promise, order="strict"))


# ------------------------------------------------------------------------------------------------ right ones
@pytest.mark.parametrize("promise", get_args(Promise))
@pytest.mark.parametrize("script", get_args(Script))
def test_every_script_has_a_right_history(script: Script, promise: Promise) -> None:
    """A note of each script that came to its end once is right in every mode."""
    forge = Forge(Variant("work", promise=promise))
    forge.right(A, script)
    forge.right("p1-k0-000000")
    assert [] == forge.kinds()


def test_repeats_under_the_same_id_are_right_at_least_once() -> None:
    """Whole stretches may be repeated, as a new owner does: each output's first occurrence is in order."""
    forge = _strict()
    first, second, third = forge.note(A), forge.note(B), forge.note(C)
    for origin in (first, second, first, second, third, second, third):
        forge.output(origin)
    assert [] == forge.kinds()


def test_a_note_that_took_a_tier_has_given_its_place_up() -> None:
    """In steady order a note with a copy may be put out after its successors; in strict order there are no copies."""
    for forge, wrong in ((Forge(), []), (_strict(), [("wrong end", A), ("order", B)])):
        first, second = forge.note(A, "tier"), forge.note(B)
        forge.copy(first)
        forge.output(second)
        forge.output(first, at=NOW + 10)
        assert wrong == forge.kinds()


def test_failure_events_of_other_stages_are_passed_over() -> None:
    """The topic of failures is everybody's: what another stage says of the same note is not ours."""
    forge, other = Forge(), Forge(Variant("other"))
    forge.right(A)
    event = other.failure(other.note(A, "fail"))
    forge.put(Outgoing(event.topic, event.key, event.value, event.headers, 0))
    assert [] == forge.kinds()


# ------------------------------------------------------------------------------------------------ lost
def test_an_acknowledged_note_that_is_not_in_the_source_is_lost() -> None:
    """The broker's word counts: what it acknowledged is in the log."""
    forge = Forge()
    forge.acknowledged.add(A)
    assert [("lost input", A)] == forge.kinds()


@pytest.mark.parametrize("script", get_args(Script))
def test_an_input_without_an_end_is_lost(script: Script) -> None:
    """Each script's note needs its end; a copy in a tier is none. So does one that was never acknowledged."""
    forge = Forge()
    origin = forge.note(A, script)
    forge.acknowledged.clear()
    if script == "tier":
        forge.copy(origin)
    assert [("lost", A)] == forge.kinds()


def test_at_most_once_may_lose() -> None:
    """At most once, an input without its end is right, and so is a dead letter of which nobody hears."""
    forge = Forge(Variant("work", promise="at most once"))
    forge.note(A)
    forge.dead(forge.note(B, "reject"))
    assert [] == forge.kinds()


def test_a_dead_letter_of_which_nobody_hears_is_lost() -> None:
    """A dead letter needs the failure event that tells its owner."""
    forge = Forge()
    forge.dead(forge.note(A, "poison"))
    assert [("lost", A)] == forge.kinds()


def test_what_was_aborted_is_not_there() -> None:
    """An output that a read_committed reader does not see ends nothing; beside one that it sees it is no duplicate."""
    forge = _strict("exactly once")
    origin = forge.note(A)
    forge.abort(forge.output(origin))
    assert [("lost", A)] == forge.kinds()
    forge.output(origin)
    assert [] == forge.kinds()


# ------------------------------------------------------------------------------------------------ wrong ends
def test_an_end_that_the_script_does_not_lead_to_is_wrong() -> None:
    """A dead letter of a plain note is wrong, also beside its output; so is a copy that nothing called for."""
    forge = Forge()
    origin = forge.right(A)
    forge.dead(origin)
    forge.copy(forge.right(B))
    assert [("wrong end", A), ("wrong end", B)] == forge.kinds()


def test_a_result_of_nothing_is_a_stranger() -> None:
    """A result of a note that the source never had is nobody's; an unreadable one is garbled."""
    forge, other = Forge(), Forge()
    event = other.output(other.note(A))
    forge.put(Outgoing(event.topic, event.key, event.value, event.headers, 0))
    forge.put(Outgoing(event.topic, event.key, b"{", event.headers, 0))
    assert [("garbled", None), ("stranger", A)] == forge.kinds()


# ------------------------------------------------------------------------------------------------ duplicates
@pytest.mark.parametrize("promise", ["exactly once", "at most once"])
@pytest.mark.parametrize("script", ["plain", "fail", "reject"])
def test_a_second_end_is_a_duplicate_where_none_is_promised(promise: Promise, script: Script) -> None:
    """Exactly and at most once, a note comes to its end once for a read_committed reader, whatever the end is."""
    forge = Forge(Variant("work", promise=promise))
    origin = forge.right(A, script)
    again = {"plain": forge.output, "fail": forge.failure, "reject": forge.dead}[script]
    again(origin)
    assert [("duplicate", A)] == forge.kinds()


def test_a_note_that_is_written_twice_in_two_ways_is_seen() -> None:
    """A producer in doubt sends a record again; what stands there twice is the same, and so has one id."""
    forge = Forge()
    forge.right(A)
    again = forge.note(A)
    assert [] == forge.kinds()
    forge.spoil(again, headers=having(again, h.CE_ID, "drawn by lot"))
    assert ("repeated input", A) in forge.kinds()


def test_a_repeat_with_another_id_or_value_is_wrong() -> None:
    """A repeat is equal in id, value and key; each difference is found."""
    for changes, kind in (
        ({"value": b'{"name":"p0-k0-000000","script":"plain","millis":0,"passed":2}'}, "another value"),
        ({"key": b"other"}, "another key"),
    ):
        forge = Forge()
        forge.spoil(forge.output(forge.right(A)), **changes)
        assert [(kind, A)] == forge.kinds()
    forge = Forge()
    again = forge.output(forge.right(A))
    forge.spoil(again, headers=having(again, h.CE_ID, "drawn by lot"))
    assert [("another id", A)] == forge.kinds()


def test_a_copy_with_other_bytes_is_wrong() -> None:
    """Copies and dead letters are the input's, byte for byte."""
    forge = Forge()
    origin = forge.right(A, "tier")
    forge.spoil(forge.copy(origin), value=(origin.value or b"") + b" ")
    assert [("another value", A)] == forge.kinds()


# ------------------------------------------------------------------------------------------------ order and place
@pytest.mark.parametrize("script", OUTPUTS)
def test_an_output_before_its_predecessors_breaks_the_order(script: Script) -> None:
    """Of the outputs of a key the first occurrences are in the order of the inputs; another key has its own order."""
    for forge in (Forge(), _strict()):
        first, second, third = forge.note(A), forge.note(B, script), forge.note(C)
        for origin in (first, third, second, third):
            forge.output(origin)
        assert [("order", C)] == forge.kinds()


def test_without_order_nothing_is_out_of_it() -> None:
    """A stage that promises no order breaks none."""
    forge = Forge(Variant("work", order="none"))
    first, second = forge.note(A), forge.note(B)
    forge.output(second)
    forge.output(first)
    assert [] == forge.kinds()


def test_inputs_out_of_order_are_seen() -> None:
    """The source itself has a key's notes in the order in which they were written."""
    forge = Forge()
    forge.right(B)
    forge.right(A)
    assert [("order", B)] == forge.kinds()


def test_a_result_on_another_partition_is_foreign() -> None:
    """An output keeps the number of its source's partition."""
    forge = Forge()
    forge.spoil(forge.output(forge.right(A)), partition=1)
    assert [("foreign partition", A)] == forge.kinds()


def test_an_answer_before_its_time_is_early() -> None:
    """A note that was put off for a tier's delay is not answered a millisecond before."""
    forge = Forge()
    origin = forge.note(A, "tier")
    forge.copy(origin)
    forge.output(origin, at=NOW + 9.999)
    assert [("early", A)] == forge.kinds()


# ------------------------------------------------------------------------------------------------ headers
@pytest.mark.parametrize("name", [h.CE_SUBJECT, h.TENANT, h.CONVERSATION, h.TRACEPARENT, h.SOURCE, h.HOPS, h.PARENT])
def test_a_header_that_tells_something_else_is_wrong(name: str) -> None:
    """An output tells its job, its trace, its parent and where its input stands."""
    forge = Forge()
    again = forge.output(forge.right(A))
    forge.spoil(again, headers=having(again, name, f"00-{'1' * 32}-{'2' * 16}-01" if name == h.TRACEPARENT else "9"))
    assert [("headers", A)] == forge.kinds()


def test_headers_are_carried_along_and_there_once() -> None:
    """A header that we do not know reaches outputs and copies; a second traceparent is one too many."""
    forge = Forge()
    origin = forge.right(A, "tier")
    copy, again = forge.copy(origin), forge.output(origin, at=NOW + 10)
    forge.spoil(copy, headers=without(copy, CARRIED[0]))
    forge.spoil(again, headers=(*again.headers, (h.TRACEPARENT, h.texts(again.headers)[h.TRACEPARENT].encode())))
    assert [("headers", A), ("headers", A)] == forge.kinds()


def test_a_copy_that_lost_its_original_is_wrong() -> None:
    """A copy says where its input stands."""
    forge = Forge()
    copy = forge.copy(forge.right(A, "tier"))
    forge.spoil(copy, headers=having(copy, h.ORIGINAL, "elsewhere/0/0/-1"))
    assert [("headers", A)] == forge.kinds()


# ------------------------------------------------------------------------------------------------ commits and lag
def test_a_commit_ahead_of_the_settlement_is_found() -> None:
    """What lies below a committed offset had its result then: an output that came later does not excuse it."""
    forge = Forge()
    forge.right(A)
    forge.right(B)
    forge.sample(committed=1, ends=1)
    forge.sample(committed=2, ends=2)
    assert [] == forge.kinds()
    forge.samples.clear()
    forge.sample(committed=2, ends=1)
    assert [("committed unsettled", B)] == forge.kinds()


def test_an_offset_map_ahead_of_the_settlement_is_found() -> None:
    """What the map beside a committed offset calls settled had its result then, too."""
    forge = Forge()
    first, second = forge.note(A), forge.note(B)
    forge.output(second)
    forge.sample(0, 1, range(1, 2))
    forge.output(first)
    assert [("order", B)] == forge.kinds()
    forge.sample(0, 0, range(1, 2))
    assert [("order", B), ("committed unsettled", B)] == forge.kinds()


def test_metadata_that_nobody_can_read_are_found() -> None:
    """What our own workers commit reads as an offset map."""
    forge = Forge()
    forge.right(A)
    forge.samples.append(Sample(1.0, {Partition("t.notes", 0): Commit(1, "lep1:rubbish")}, {Partition("t.work", 0): 1}))
    assert [("metadata", None)] == forge.kinds()


def test_at_most_once_commits_first() -> None:
    """A stage that promises at most once is ahead of its settlement on purpose."""
    forge = Forge(Variant("work", promise="at most once"))
    forge.right(A)
    forge.sample(committed=1, ends=0)
    assert [] == forge.kinds()


def test_at_most_once_takes_back_what_it_has_not_begun() -> None:
    """Its commit may go back when a partition leaves, but never below what has a result: that would come twice."""
    forge = Forge(Variant("work", promise="at most once"))
    forge.right(A)
    forge.sample(committed=1, ends=0)
    forge.sample(committed=0, ends=0)
    assert [] == forge.kinds()
    forge.sample(committed=0, ends=1)
    assert [("rewound", None)] == forge.kinds()


def test_a_commit_that_goes_back_is_found() -> None:
    """A group never stands below where it stood: somebody committed for a partition that was not his."""
    forge = Forge()
    forge.right(A)
    forge.sample(committed=1, ends=1)
    forge.sample(committed=0, ends=1)
    assert [("rewound", None)] == forge.kinds()


def test_lag_that_is_left_is_found() -> None:
    """A lag above 0 at any look is told with its partition; so is a lag that nobody looked at."""
    forge = Forge()
    forge.right(A)
    forge.lags.append({Partition("t.notes", 0): 0, Partition("t.notes", 1): 3})
    found = forge.found()
    assert ["lag"] == [one.kind for one in found]
    assert "t.notes/1 by 3" in found[0].what
    forge.lags.clear()
    assert [("lag", None)] == forge.kinds()
