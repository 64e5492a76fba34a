"""Control: what is paused, who is concerned, and that the state stays bounded whatever was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import control as c
from pipeline.core.control import ADMIT, ControlState, Entry, Hold, Refuse, key_of, pause_of
from pipeline.core.job import Job
from pipeline.core.payloads import Control

ACME = Job("job-1", tenant="acme", type="quick_answer")
_NAMES = st.none() | st.sampled_from(["a", "b", "a/b", "ä %"])


def paused(**scope: Any) -> Control:
    """A pause."""
    return Control(state="paused", at_ms=0, operator="ann", **scope)


def cancelled(job: str, until: int | None = None) -> Control:
    """A cancellation."""
    return Control(state="cancelled", job=job, at_ms=0, expires_at_ms=until)


def state(*entries: Control, now: float = 0.0) -> ControlState:
    """What is in force after `entries`."""
    return ControlState().fold([(key_of(one), one) for one in entries], now)


pauses = st.builds(
    Control, state=st.just("paused"), at_ms=st.just(0), stage=_NAMES, type=_NAMES, tenant=_NAMES, model=_NAMES
)
cancels = st.builds(cancelled, st.sampled_from(["1", "2", "3", "x/y"]), st.none() | st.integers(0, 20_000))
entries = st.lists(st.tuples(st.one_of(pauses, cancels), st.booleans()))


def spelled(made: list[tuple[Control, bool]]) -> list[Entry]:
    """Entries of a log: each a record, or the tombstone of its key."""
    return [(key_of(one), one if there else None) for one, there in made]


@given(entries, st.integers(0, 20))
def test_the_state_is_the_last_word_of_each_key(made: list[tuple[Control, bool]], now: int) -> None:
    """Whatever the order of pauses, cancellations and tombstones, the last record of a key counts, unless expired."""
    last = dict(spelled(made))
    got = ControlState().fold(spelled(made), now)
    wanted = {key for key, one in last.items() if one is not None and not c.expired(one, now) and key != "cancel/"}
    assert {key_of(one) for one in (*got.pauses.values(), *got.cancels.values())} == wanted


@given(entries, st.integers(0, 30))
def test_folding_in_parts_is_folding_at_once(made: list[tuple[Control, bool]], cut: int) -> None:
    """It does not matter how a topic is cut into fetches."""
    log = spelled(made)
    assert ControlState().fold(log[:cut], 5.0).fold(log[cut:], 5.0) == ControlState().fold(log, 5.0)


@pytest.mark.parametrize(
    "scope,concerned",
    [
        ({}, True),
        ({"stage": "infer"}, True),
        ({"stage": "notify"}, False),
        ({"tenant": "acme"}, True),
        ({"tenant": "other"}, False),
        ({"type": "quick_answer"}, True),
        ({"model": "m"}, True),
        ({"model": "n"}, False),
        ({"stage": "infer", "tenant": "acme"}, True),
        ({"stage": "infer", "tenant": "other"}, False),
    ],
)
def test_a_pause_concerns_what_all_its_names_fit(scope: dict[str, str], concerned: bool) -> None:
    """Each name given narrows the pause; none given is everything."""
    verdict = state(paused(**scope)).verdict("infer", ACME, "m", 0.0)
    assert isinstance(verdict, Hold) == concerned
    assert concerned or verdict == ADMIT


@pytest.mark.parametrize(
    "scope,whole", [({}, True), ({"stage": "infer"}, True), ({"stage": "notify"}, False), ({"tenant": "acme"}, False)]
)
def test_only_a_pause_without_further_names_stops_a_stage_as_a_whole(scope: dict[str, str], whole: bool) -> None:
    """Then nothing of the stage need be taken at all."""
    assert bool(state(paused(**scope)).whole("infer")) == whole


def test_a_cancellation_is_stronger_than_a_pause_and_ends_with_its_time() -> None:
    """A cancelled job is refused even while it is paused; expired it is forgotten."""
    both = state(paused(), cancelled("job-1", 10_000))
    assert both.verdict("infer", ACME, "m", 9.0) == Refuse("cancelled", "job job-1: cancelled")
    assert isinstance(both.verdict("infer", ACME, "m", 10.0), Hold)
    assert not both.quiet
    assert not both.fold([], 10.0).cancels


def test_the_oldest_cancellations_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are written, a bounded number is kept, the newest; one said again counts as new."""
    monkeypatch.setattr(c, "MAX_CANCELS", 3)
    said = [cancelled(job) for job in ("1", "2", "3", "1", "4")]
    assert list(state(*said).cancels) == ["3", "1", "4"]


@given(pauses)
def test_a_pause_is_read_back_from_its_key(pause: Control) -> None:
    """The key says all of what it is about, whatever the names are."""
    read = pause_of(key_of(pause), pause.at_ms, pause.operator, pause.reason)
    assert read is not None
    assert key_of(read) == key_of(pause)


@pytest.mark.parametrize(
    "key",
    [
        *("", "pause", "pause/", "pause/stage", "pause/stage/", "pause/job/x", "pause/all/x", "cancel/x"),
        *("pause/stage/a/stage/b", "pause/tenant/a/stage/b", "pause/stage/a/", "pause/stage/%zz/x", "pause/STAGE/a"),
    ],
)
def test_what_is_no_key_of_a_pause_is_none(key: str) -> None:
    """Junk in the audit is no pause of anything."""
    assert pause_of(key, 1) is None


def test_pauses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound no further pause is taken in."""
    monkeypatch.setattr(c, "MAX_PAUSES", 2)
    assert len(state(paused(), paused(tenant="a"), paused(tenant="b")).pauses) == 2


@pytest.mark.parametrize(
    "key,entry",
    [("pause/stage/infer", paused()), ("cancel/", Control(state="cancelled", at_ms=0)), ("junk", cancelled("1"))],
)
def test_an_entry_under_a_wrong_key_changes_nothing(key: str, entry: Control) -> None:
    """It could never be taken back by its own key."""
    assert ControlState().fold([(key, entry)], 0.0).quiet


def test_keys_are_spelled_so_that_no_two_scopes_share_one() -> None:
    """A slash in a name is encoded; names are labelled and in one order."""
    assert key_of(paused()) == "pause/all"
    assert key_of(paused(tenant="a/b")) == "pause/tenant/a%2Fb"
    assert key_of(paused(tenant="acme", stage="infer")) == "pause/stage/infer/tenant/acme"
    assert key_of(cancelled("x y")) == "cancel/x%20y"
    assert c.describe_scope(paused(tenant="acme", stage="infer")) == "stage infer, tenant acme"


def test_reasons_name_who_and_why() -> None:
    """What is held says by whom and why, for the log and `/readyz`."""
    said: Any = Control(state="paused", stage="infer", operator="ann", reason="too dear", at_ms=0)
    assert state(said).whole("infer") == "stage infer: paused by ann: too dear"
