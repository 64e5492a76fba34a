"""What a person says to all workers, before it is written."""

from __future__ import annotations

import pytest

from pipeline.core.control import CANCEL_SECONDS, ControlState
from pipeline.core.errors import ConfigurationError
from pipeline.ops.control import Scope, audited, cancelling, listed, pausing, resuming
from pipeline.ops.topic_check import TopicState, problems
from pipeline.resources import resource
from pipeline.settings_catalog import load_catalog

CATALOG = load_catalog(resource("deploy", "catalog.yaml"))


@pytest.mark.parametrize("scope", [Scope(stage="infur"), Scope(type="x"), Scope(model="x"), Scope(tenant="")])
def test_a_name_that_nobody_has_is_an_error_that_lists_those_there_are(scope: Scope) -> None:
    """A misspelt pause would hold nothing while a person thinks that it does."""
    with pytest.raises(ConfigurationError, match="is called"):
        scope.checked(["infer"], CATALOG)


def test_names_that_are_known_pass() -> None:
    """Each of the four may be given, together or alone."""
    kind = next(iter(CATALOG.types))
    scope = Scope("infer", kind, "acme", CATALOG.types[kind].model)
    assert scope.checked(["infer"], CATALOG.model_copy(update={"tenants": None})) == scope


def test_a_pause_is_taken_back_by_its_own_scope_only() -> None:
    """Resuming another scope says what is paused; the entry that takes it back is a tombstone under the same key."""
    scope = Scope(stage="infer", tenant="acme")
    said = pausing(scope, "too dear", "ann", 5.0)
    state = ControlState().fold(said, 5.0)
    assert resuming(scope, state) == [(said[0][0], None)]
    with pytest.raises(ConfigurationError, match="what is paused is stage infer, tenant acme"):
        resuming(Scope(stage="infer"), state)
    with pytest.raises(ConfigurationError, match="what is paused is nothing"):
        resuming(scope, ControlState())


def test_cancellations_expire_and_are_said_once_each() -> None:
    """They outlive every record that work topics keep, and no longer."""
    said = cancelling(["b", "a", "b"], "by mistake", "ann", 1.0)
    state = ControlState().fold(said, 1.0)
    assert list(state.cancels) == ["b", "a"]
    assert ControlState().fold(said, 1.0 + CANCEL_SECONDS).quiet


@pytest.mark.parametrize("job", ["", "two words", "ünicode", "x" * 257, "a\nb"])
def test_what_is_no_id_of_a_job_cannot_be_cancelled(job: str) -> None:
    """Nothing is written then."""
    with pytest.raises(ConfigurationError, match="no job's id"):
        cancelling(["fine", job], "", "ann", 1.0)


def test_what_is_in_force_is_listed_without_what_it_leaves_open() -> None:
    """A pause has no job and no expiry."""
    state = ControlState().fold(pausing(Scope(tenant="acme"), "", "ann", 5.0), 5.0)
    assert listed(state) == [{"state": "paused", "tenant": "acme", "reason": "", "operator": "ann", "at_ms": 5000}]


def test_the_control_topic_is_checked_to_be_compacted_and_of_one_partition() -> None:
    """Elsewhere compaction is what must not be."""
    size = {"max.message.bytes": "1000"}
    wanted = {"p.control": TopicState(1, {"cleanup.policy": "compact"} | size)}
    assert problems({}, wanted, [], 600) == ["p.control does not exist: run `pipeline topics create`"]
    assert problems(wanted, wanted, [], 600) == []
    wrong = {"p.control": TopicState(3, {"cleanup.policy": "delete"} | size)}
    assert len(problems(wrong, wanted, [], 600)) == 2


def test_all_that_is_said_is_audited() -> None:
    """Each entry by its key: what was paused, cancelled and taken back, by whom, and why."""
    said = [*pausing(Scope(stage="infer"), "quota", "ann", 7.0), *cancelling(["j"], "withdrawn", "ann", 7.0)]
    told = audited([*said, ("pause/all", None)], "ann", 7.5)
    assert [(one.action, one.subject, one.operator, one.reason, one.at_ms) for one in told] == [
        ("control.paused", "pause/stage/infer", "ann", "quota", 7_500),
        ("control.cancelled", "cancel/j", "ann", "withdrawn", 7_500),
        ("control.resumed", "pause/all", "ann", "", 7_500),
    ]
