"""When faults strike, and what their headers say."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.devkit.simulator_config import chance
from pipeline.devkit.simulator_faults import Fault, FaultKind, FaultPlan, RetryAfterForm, error_of, retry_after_headers
from tests.examples import at_most

_NOW = datetime(2027, 3, 1, 12, 0, 0, 250_000, UTC)
_FAULTS = st.builds(
    Fault,
    kind=st.sampled_from(FaultKind),
    times=st.one_of(st.none(), st.integers(1, 3)),
    probability=st.sampled_from([0.25, 1.0]),
    seed=st.integers(0, 5),
    match=st.sampled_from(["", "a", "B"]),
    after=st.integers(0, 3),
)


def _kinds(plan: FaultPlan, *questions: str) -> list[str | None]:
    struck = (plan.strike(question) for question in questions)
    return [fault.kind.value if fault else None for fault in struck]


def test_a_fault_strikes_once_unless_told_otherwise() -> None:
    """`times` counts the strikes; None never ends."""
    assert _kinds(FaultPlan([Fault(kind=FaultKind.EMPTY)]), "q", "q") == ["empty", None]
    assert _kinds(FaultPlan([Fault(kind=FaultKind.EMPTY, times=None)]), *"qqq") == ["empty"] * 3


def test_a_fault_leaves_the_first_calls_alone() -> None:
    """`after` counts only the calls that match."""
    plan = FaultPlan([Fault(kind=FaultKind.CUT, after=1, match="Return")])
    assert _kinds(plan, "other", "my return", "other", "RETURNS", "return") == [None, None, None, "cut", None]


def test_the_first_fault_that_strikes_wins() -> None:
    """Faults act in the order in which they were added, and a spent one makes room for the next."""
    plan = FaultPlan()
    plan.add(Fault(kind=FaultKind.SERVER_ERROR, times=2), Fault(kind=FaultKind.REFUSAL))
    assert _kinds(plan, *"qqqq") == ["server_error", "server_error", "refusal", None]
    assert [(state.seen, state.struck) for state in plan.states] == [(2, 2), (1, 1)]


def test_clearing_heals() -> None:
    """After `clear` nothing strikes."""
    plan = FaultPlan([Fault(kind=FaultKind.EMPTY, times=None)])
    plan.clear()
    assert _kinds(plan, "q") == [None]


def test_a_probability_strikes_about_its_share_and_always_the_same_calls() -> None:
    """One seed gives one sequence; another seed gives another."""
    seeds = (1, 1, 2)
    runs = [
        _kinds(FaultPlan([Fault(kind=FaultKind.EMPTY, times=None, probability=0.3, seed=seed)]), *["q"] * 1000)
        for seed in seeds
    ]
    assert runs[0] == runs[1] != runs[2]
    assert 250 < runs[0].count("empty") < 350


@settings(max_examples=at_most(40))
@given(faults=st.lists(_FAULTS, max_size=4), questions=st.lists(st.sampled_from(["a", "b", "ab", "c"]), max_size=20))
def test_strikes_are_bounded_and_repeatable(faults: list[Fault], questions: list[str]) -> None:
    """No fault strikes more often than told, or where it does not match, and a run can be repeated."""
    plan = FaultPlan(faults)
    struck = [plan.strike(question) for question in questions]
    again = FaultPlan(faults)
    assert struck == [again.strike(question) for question in questions]
    for question, fault in zip(questions, struck, strict=True):
        assert fault is None or fault.match.casefold() in question
    for state in plan.states:
        assert state.struck <= state.seen
        assert state.fault.times is None or state.struck <= state.fault.times
    assert sum(state.struck for state in plan.states) == sum(fault is not None for fault in struck)


@settings(max_examples=at_most(40))
@given(seed=st.integers(), turn=st.integers(0))
def test_chance_is_in_its_bounds(seed: int, turn: int) -> None:
    """A chance is at least 0 and below 1."""
    assert 0 <= chance(seed, turn) < 1


@pytest.mark.parametrize(
    "form, headers",
    [
        (RetryAfterForm.SECONDS, {"retry-after": "2"}),
        (RetryAfterForm.DATE, {"retry-after": "Mon, 01 Mar 2027 12:00:02 GMT"}),
        (RetryAfterForm.MILLISECONDS, {"retry-after-ms": "1500"}),
    ],
)
def test_retry_after_has_three_forms(form: RetryAfterForm, headers: dict[str, str]) -> None:
    """1.5 seconds are written as seconds, as a date or as milliseconds, never too early."""
    fault = Fault(kind=FaultKind.RATE_LIMIT, retry_after=1.5, retry_after_form=form)
    assert retry_after_headers(fault, _NOW) == headers


@settings(max_examples=at_most(40))
@given(seconds=st.floats(-1e18, 1e18))
def test_any_time_can_be_written_as_a_date(seconds: float) -> None:
    """Even absurd times give a date, and a possible one is at most a second late."""
    fault = Fault(kind=FaultKind.RATE_LIMIT, retry_after=seconds, retry_after_form=RetryAfterForm.DATE)
    due = parsedate_to_datetime(retry_after_headers(fault, _NOW)["retry-after"])
    if abs(seconds) < 1e8:
        assert timedelta(0) <= due - (_NOW + timedelta(seconds=seconds)) < timedelta(seconds=1)


def test_junk_is_sent_as_it_is() -> None:
    """A text for `retry_after` goes out unchanged, to test who reads it."""
    assert retry_after_headers(Fault(kind=FaultKind.UNAVAILABLE, retry_after="soon"), _NOW) == {"retry-after": "soon"}


def test_only_rate_limits_name_a_time_by_themselves() -> None:
    """A rate limit says one second unless told; other errors say nothing."""
    assert retry_after_headers(Fault(kind=FaultKind.RATE_LIMIT), _NOW) == {"retry-after": "1"}
    assert retry_after_headers(Fault(kind=FaultKind.UNAVAILABLE), _NOW) == {}


def test_only_error_kinds_have_an_error() -> None:
    """Seven kinds answer with an error status; all others with 200."""
    errors = {kind: error_of(Fault(kind=kind), _NOW) for kind in FaultKind}
    assert {kind.value: error.status for kind, error in errors.items() if error} == {
        "rate_limit": 429,
        "insufficient_quota": 429,
        "server_error": 500,
        "unavailable": 503,
        "unauthorized": 401,
        "forbidden": 403,
        "context_length_exceeded": 400,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": 0},
        {"probability": 0.0},
        {"after": -1},
        {"seconds": -1},
        {"kind": "flood"},
        {"retry_after": float("inf")},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    """Mistakes in a fault are found when it is made."""
    with pytest.raises(ValidationError):
        Fault.model_validate({"kind": "empty"} | wrong)
