"""Tests of pipeline/ops/endpoints.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.control import ControlState
from pipeline.core.endpoints import HEALTHY, EndpointState, disabling, state_of
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Control, Delivery
from pipeline.core.record import Position
from pipeline.ops.deliveries import Entry, Outcomes
from pipeline.ops.endpoints import (
    check_writable,
    checked,
    retired,
    rotated,
    rows,
    turned_off,
    turned_on,
    write_secret,
)
from tests.stages.made import NOW, NOW_MS, catalog

CATALOG = catalog()


def seen() -> Outcomes:
    """Make what the log says of an endpoint: one attempt that failed."""
    delivery = Delivery(
        webhook_id="w", kind="job.failed", outcome="failed", status=500, duration_ms=12, finished_at_ms=NOW_MS
    )
    outcomes = Outcomes()
    outcomes.add(Entry(Position("d", 0, 0), NOW_MS, "job", 0, None, delivery))
    return outcomes


def test_every_endpoint_is_listed_with_its_state_and_its_deliveries() -> None:
    """Also one that stands in the control topic and not in the catalog: it would be in force again with its name."""
    standing = {
        "crm": Control(state="failing", endpoint="crm", reason="500", at_ms=NOW_MS),
        "old": disabling("old", "ann", "moved", NOW),
    }
    told = {row.endpoint: row for row in rows(CATALOG, standing, {"crm": seen()})}
    assert list(told) == ["default", "crm", "audit", "old"]
    assert (told["default"].state, told["default"].since_ms, told["default"].last_at_ms) == ("ok", None, None)
    crm = told["crm"]
    assert (crm.state, crm.since_ms, crm.why, crm.outcomes) == ("failing", NOW_MS, "500", {"failed": 1})
    assert (crm.last, crm.last_status, crm.last_ms, crm.last_at_ms) == ("failed", 500, 12, NOW_MS)
    assert (told["old"].state, told["old"].by) == ("disabled, not in the catalog", "ann")
    assert crm.plain["endpoint"] == "crm"


def test_an_unknown_name_is_an_error_that_lists_the_known() -> None:
    """So that nobody thinks to have disabled what he has misspelt."""
    assert checked("crm", CATALOG) is CATALOG.endpoints["crm"]
    with pytest.raises(ConfigurationError, match="no endpoint is called 'crn': there are audit, crm, default"):
        checked("crn", CATALOG)


def test_off_and_on_are_entries_for_all_workers_and_audit_records() -> None:
    """What is folded by the rules of the control topic is disabled, and then as if nothing had been."""
    off, audit = turned_off("crm", "ann", "moved", NOW)
    state = ControlState().fold(off, NOW)
    assert state_of(state.endpoints["crm"]) == EndpointState(disabled_since=NOW, by="ann", why="moved")
    assert (audit.action, audit.subject, audit.operator, audit.reason, audit.at_ms) == (
        "endpoint.disabled",
        "crm",
        "ann",
        "moved",
        NOW_MS,
    )
    on, audit = turned_on("crm", state_of(state.endpoints["crm"]), "bob", "", NOW)
    assert state.fold(on, NOW).endpoints == {}
    assert (audit.action, audit.operator) == ("endpoint.enabled", "bob")


def test_what_is_not_disabled_is_not_enabled() -> None:
    """It would be written to the audit as if something had happened."""
    with pytest.raises(ConfigurationError, match="is not disabled"):
        turned_on("crm", HEALTHY, "ann", "", NOW)


def test_a_new_secret_signs_first_and_the_old_ones_with_it() -> None:
    """Until they are retired; of three no fourth is made."""
    text = rotated("whsec_old", "whsec_new")
    assert text == "whsec_new whsec_old"
    assert retired(text) == "whsec_new"
    with pytest.raises(ConfigurationError, match="one secret only"):
        retired("whsec_new\n")
    with pytest.raises(ConfigurationError, match="there are 3 secrets already"):
        rotated("a b c", "d")


def test_a_secrets_file_is_replaced_whole_under_its_mode(tmp_path: Path) -> None:
    """Also where its name is a link, which stays one; nothing else is left in its folder."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("whsec_old")
    real.chmod(0o600)
    link.symlink_to(real)
    check_writable(link)
    write_secret(link, "whsec_new whsec_old")
    assert (real.read_text(), link.is_symlink(), real.stat().st_mode & 0o777) == ("whsec_new whsec_old\n", True, 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    """It names the file and the cure, and never what is in it."""
    for act in (check_writable, lambda path: write_secret(path, "whsec_new")):
        with pytest.raises(ConfigurationError, match=r"cannot be written .* change the secret where"):
            act(tmp_path / "nowhere" / "secret")
