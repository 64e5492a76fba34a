"""Tests of pipeline/devkit/connect_rest.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from pipeline.devkit.connect_rest import ConnectFailed, ConnectRest, NotNow, Status, status_of
from pipeline.devkit.listen import listening
from pipeline.devkit.ports import free_ports

TRACE = """org.apache.kafka.connect.errors.ConnectException: the producer has ended
\tat io.debezium.Somewhere(Somewhere.java:1)
Caused by: java.io.IOException: in between
\t... 5 more
Caused by: org.postgresql.util.PSQLException: no such publication
\t... 7 more
"""


def answer(connector: str, *tasks: str, trace: str | None = None) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"id": number, "state": state} for number, state in enumerate(tasks)]
    if trace:
        parts[-1]["trace"] = trace
    return {"name": "documents", "connector": {"state": connector, "worker_id": "w"}, "tasks": parts}


def test_a_connector_runs_only_if_all_of_its_tasks_do() -> None:
    """One without a task is not running yet."""
    assert status_of(answer("RUNNING", "RUNNING")).running
    assert not status_of(answer("RUNNING")).running
    assert not status_of(answer("RUNNING", "UNASSIGNED")).running
    assert not Status("UNKNOWN").running


def test_a_failure_is_told_by_the_first_line_and_the_root_cause() -> None:
    """The first line of Debezium's traces never says what happened."""
    status = status_of(answer("RUNNING", "FAILED", trace=TRACE))
    assert status.failed
    assert status.reason == (
        "org.apache.kafka.connect.errors.ConnectException: the producer has ended;"
        " caused by org.postgresql.util.PSQLException: no such publication"
    )
    assert status_of(answer("FAILED", trace=None)).reason == ""


def test_a_trace_of_one_line_is_told_once() -> None:
    """No cause is made up."""
    assert status_of(answer("RUNNING", "FAILED", trace="a: b\n\tat c")).reason == "a: b"


@asynccontextmanager
async def worker(status: int, body: Any) -> AsyncIterator[ConnectRest]:
    """A client of a worker that answers everything so, and finds `poll.interval.ms` wrong when asked to validate."""

    async def answers(request: web.Request) -> web.Response:
        assert request.content_type == "application/json"
        if request.path.endswith("/validate"):
            assert request.path == "/connector-plugins/Some/config/validate"
            errors = [{"value": {"errors": ["poll.interval.ms is no number"]}}, {"value": None}]
            return web.json_response({"configs": errors})
        return web.json_response(body, status=status) if body is not None else web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answers)
    async with listening(app, 0, "worker") as port, ConnectRest(f"http://127.0.0.1:{port}") as rest:
        yield rest


@pytest.mark.local
async def test_what_is_not_known_is_none() -> None:
    """A connector may be asked for before the worker has read of it."""
    async with worker(404, {"message": "no"}) as rest:
        assert await rest.status("documents") is None
        assert await rest.configuration("documents") is None
        with pytest.raises(NotNow):
            await rest.connectors()


@pytest.mark.local
async def test_a_worker_that_joins_is_asked_again() -> None:
    """A conflict is a rebalance under way; no answer at all is a worker that starts."""
    async with worker(409, {"message": "rebalance"}) as rest:
        with pytest.raises(NotNow, match="rebalance"):
            await rest.configure("documents", {})
    async with ConnectRest(f"http://127.0.0.1:{free_ports(1)[0]}") as rest:
        with pytest.raises(NotNow):
            await rest.connectors()


@pytest.mark.local
async def test_a_refused_configuration_says_what_is_wrong_with_it() -> None:
    """Kafka Connect 4.3.1 answers 500 and a null pointer; its validation knows better."""
    async with worker(500, {"message": "null"}) as rest:
        with pytest.raises(ConnectFailed, match=r"refuses the connector documents: poll\.interval\.ms is no number"):
            await rest.configure("documents", {"connector.class": "a.b.Some"})


@pytest.mark.local
async def test_an_empty_answer_is_no_error() -> None:
    """A restart and a deletion say nothing."""
    async with worker(204, None) as rest:
        await rest.restart("documents")
        await rest.delete("documents")


@pytest.mark.local
async def test_the_name_is_not_part_of_the_configuration_that_was_given() -> None:
    """Connect adds it; what comes back is compared with what is wanted."""
    async with worker(200, {"name": "documents", "tasks.max": "1"}) as rest:
        assert await rest.configuration("documents") == {"tasks.max": "1"}
