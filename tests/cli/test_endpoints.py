"""Tests of pipeline/cli/endpoints.py and of what `deliveries` prints: the verbs on the broker in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline import delivering
from pipeline.broker.topics import TopicSpec
from pipeline.cli.app import app
from pipeline.cli.endpoint_name import endpoint_names
from pipeline.cli.session import OUT
from pipeline.core.control import ControlState
from pipeline.core.endpoints import state_of
from pipeline.core.payloads import Audit, Control
from pipeline.delivering import DeliveryDesk
from pipeline.ops.publish import Publisher
from pipeline.wiring import ControlDesk, catalog_of
from tests.ops.delivery_world import CODEC, World


class Office:
    """A broker in memory that several commands work at, one after the other, each in a loop of its own."""

    def __init__(self) -> None:
        """Fill the log: to `default`, one webhook that arrived after a failure."""
        self.world = World(time.time)
        asyncio.run(self._fill())

    @asynccontextmanager
    async def opened(self, *_: Any) -> AsyncIterator[DeliveryDesk]:
        """Open a desk on what the commands before have written."""
        broker = self.world.broker
        control = ControlDesk(await self._state(), Publisher(broker.producer(), CODEC, "p"), broker)
        yield DeliveryDesk(catalog_of(_[0]), control, self.world.log(), self.world.resender())

    def runs(self, *arguments: str, code: int = 0) -> Result:
        """Run a command."""
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == code, done.output
        return done

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command that prints JSON lines."""
        return [json.loads(line) for line in self.runs(*arguments, "--json").stdout.splitlines()]

    def audits(self) -> Sequence[Audit]:
        """What the audit has."""
        return asyncio.run(self._audits())

    async def _fill(self) -> None:
        await self.world.open()
        await self.world.broker.create_topics([TopicSpec("p.control", 1), TopicSpec("p.audit", 1)])
        source = await self.world.result("a")
        told: dict[str, Any] = {"endpoint": "default", "duration_ms": 12, "request_bytes": 300}
        await self.world.delivery("a", "failed", source, status=500, attempts=1, reason="it answered 500", **told)
        await self.world.delivery("a", "delivered", source, status=204, attempts=2, **told)

    async def _state(self) -> ControlState:
        entries = []
        for record in self.world.broker.records("p.control"):
            entry = await CODEC.decode("control", Control, record.value) if record.value else None
            entries.append(((record.key or b"").decode(), entry))
        return ControlState().fold(entries, time.time())

    async def _audits(self) -> Sequence[Audit]:
        return [await CODEC.decode("audit", Audit, one.value or b"") for one in self.world.broker.records("p.audit")]


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Office:
    """Let the commands work here."""
    made = Office()
    # Several tests at once have a terminal's width, and tables would break what they are asked for.
    monkeypatch.setattr(OUT, "_width", 250)
    monkeypatch.setattr(delivering, "open_deliveries", made.opened)
    return made


def test_the_list_tells_state_and_deliveries(office: Office) -> None:
    """As a table for people, and as a JSON line for each endpoint."""
    (row,) = office.lines("endpoints", "list")
    assert (row["endpoint"], row["state"], row["outcomes"]) == ("default", "ok", {"failed": 1, "delivered": 1})
    assert (row["last"], row["last_status"], row["last_ms"]) == ("delivered", 204, 12)
    table = office.runs("endpoints", "list").output
    assert "completed, failed; v1" in table
    assert "delivered 204, 12 ms" in table
    assert office.lines("endpoints", "list", "--since", "2100-01-01")[0]["outcomes"] == {}


def test_an_endpoint_is_disabled_and_enabled_by_hand(office: Office) -> None:
    """For all workers, and with an audit record of each."""
    office.runs("endpoints", "disable", "default", "--reason", "it moves", "--operator", "ann")
    (row,) = office.lines("endpoints", "list")
    assert (row["state"], row["by"], row["why"]) == ("disabled", "ann", "it moves")
    assert office.lines("endpoints", "enable", "default", "--operator", "bob") == [
        {"endpoint": "default", "state": "enabled"}
    ]
    assert [(one.action, one.operator) for one in office.audits()] == [
        ("endpoint.disabled", "ann"),
        ("endpoint.enabled", "bob"),
    ]
    assert office.lines("endpoints", "list")[0]["state"] == state_of(None).word
    office.runs("endpoints", "enable", "default", code=2)


@pytest.mark.parametrize("verb", ["disable", "enable", "test"])
def test_an_unknown_name_changes_nothing(office: Office, verb: str) -> None:
    """The sentence lists those there are."""
    done = office.runs("endpoints", verb, "crn", code=2)
    assert "no endpoint is called 'crn': there are default" in " ".join(done.output.split())
    assert office.audits() == []


def test_the_log_is_listed_and_one_webhook_shown(office: Office) -> None:
    """With its counts; what is not there ends with 1."""
    assert [one["outcome"] for one in office.lines("deliveries", "list")] == ["failed", "delivered"]
    table = office.runs("deliveries", "list", "--limit", "1").output
    assert "1 delivered, 1 failed" in table
    assert [one["attempts"] for one in office.lines("deliveries", "show", "a-result")] == [1, 2]
    assert "attempt 1  failed 500 in 12 ms: it answered 500" in office.runs("deliveries", "show", "a-result").output
    office.runs("deliveries", "show", "b-result", code=1)
    assert "nothing found" in office.runs("deliveries", "list", "--job", "b").output


def test_what_is_sent_again_is_told(office: Office) -> None:
    """By its id; the copy stands in the first tier."""
    done = office.runs("deliveries", "resend", "a-result", "--yes")
    assert "1 to p.notify.retry.5s" in " ".join(done.output.split())
    assert len(office.world.broker.records("p.notify.retry.5s")) == 1


def test_names_are_completed_from_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the settings are wrong, nothing is: the verb will say so."""
    assert (endpoint_names("de"), endpoint_names("x")) == (["default"], [])
    monkeypatch.setenv("PIPELINE_CATALOG", "/nonexistent/file")
    assert endpoint_names("") == []


def test_a_trial_that_cannot_be_ends_with_1(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what is wrong: here the address is on this machine, which is not allowed."""
    monkeypatch.setenv("WEBHOOK_URL", "http://127.0.0.1:9/hooks")
    monkeypatch.setenv("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")
    done = office.runs("endpoints", "test", "default", code=1)
    assert "it cannot be delivered to" in done.output
