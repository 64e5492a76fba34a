"""What Kafka Connect's REST interface answers, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp

from pipeline.core.errors import ConfigurationError

_SECONDS = 30.0

# A distributed worker answers so while it joins or the workers share out their work anew.
_LATER = {HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE}


class ConnectFailed(ConfigurationError):
    """The worker or a connector cannot do its work. The text says what happened, where, and where the log is."""


class NotNow(Exception):
    """The worker does not answer, or not yet: ask again."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker knows of a connector: the states of the connector and of its tasks, and the trace of a failure.

    RUNNING says only that the task was started: Debezium may still take its snapshot, or be about to fail.
    """

    connector: str
    tasks: tuple[str, ...] = ()
    trace: str = ""

    @property
    def running(self) -> bool:
        """Whether the connector and at least one task run, and none does not."""
        return self.connector == "RUNNING" and bool(self.tasks) and set(self.tasks) == {"RUNNING"}

    @property
    def failed(self) -> bool:
        """Whether the connector or a task has failed, and so does nothing until it is restarted."""
        return "FAILED" in (self.connector, *self.tasks)

    @property
    def reason(self) -> str:
        """Why, in a line: the first line of the trace, and its root cause where the trace names another."""
        lines = [line.strip() for line in self.trace.splitlines()]
        causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
        return "; caused by ".join(dict.fromkeys([*lines[:1], *causes[-1:]]))


def status_of(answer: Mapping[str, Any]) -> Status:
    """Read the answer to `GET /connectors/<name>/status`."""
    parts = [answer["connector"], *answer["tasks"]]
    states = [str(part["state"]) for part in parts]
    trace = next((str(part["trace"]) for part in parts if part.get("trace")), "")
    return Status(states[0], tuple(states[1:]), trace)


class ConnectRest:
    """A client of one worker; `async with` closes its connections. All raise `NotNow` where asking again may help."""

    def __init__(self, url: str) -> None:
        self._url = url
        # Also where there is no body: a POST of nothing is refused without it.
        headers = {"Content-Type": "application/json"}
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS), headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self._session.close()

    async def connectors(self) -> list[str]:
        """The names of all connectors."""
        found = await self._ask("GET", "/connectors")
        if found is None:
            raise NotNow("the worker listens, but has not set up its interface yet")
        return list(found)

    async def configuration(self, name: str) -> dict[str, str] | None:
        """A connector's configuration as it was given, without `name`; None if there is no such connector."""
        found = await self._ask("GET", f"/connectors/{name}/config")
        return None if found is None else {key: text for key, text in found.items() if key != "name"}

    async def configure(self, name: str, configuration: Mapping[str, str]) -> None:
        """Create a connector or change it. Raises `ConnectFailed`, which says what the worker finds wrong with it."""
        wanted = dict(configuration)
        try:
            await self._ask("PUT", f"/connectors/{name}/config", wanted)
        except ConnectFailed as refused:
            found = await self._validate({**wanted, "name": name})
            raise ConnectFailed(f"Kafka Connect refuses the connector {name}: {found or refused}") from None

    async def status(self, name: str) -> Status | None:
        """How a connector does; None if it is not known, or not yet."""
        found = await self._ask("GET", f"/connectors/{name}/status")
        return None if found is None else status_of(found)

    async def restart(self, name: str) -> None:
        """Start again what has failed of a connector: itself, its tasks."""
        await self._ask("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")

    async def delete(self, name: str) -> None:
        """Delete a connector. Its slot in the source stays, and keeps the source's log."""
        await self._ask("DELETE", f"/connectors/{name}")

    async def _validate(self, configuration: Mapping[str, str]) -> str:
        """What is wrong with a configuration, setting by setting. The refusal itself does not always say so (4.3.1)."""
        kind = configuration.get("connector.class", "").rpartition(".")[2]
        answer = await self._ask("PUT", f"/connector-plugins/{kind}/config/validate", configuration)
        values = [entry.get("value") or {} for entry in (answer or {}).get("configs", ())]
        return "; ".join(str(error) for value in values for error in value.get("errors", ()))

    async def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        try:
            async with self._session.request(method, self._url + path, json=body) as response:
                if response.status == HTTPStatus.NOT_FOUND:
                    return None
                text = await response.text()
                answer = json.loads(text) if text else None
                if response.status in _LATER:
                    raise NotNow(f"{method} {path}: {response.status} {_message(answer)}")
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise ConnectFailed(f"Kafka Connect refuses {method} {path}: {_message(answer)}")
                return answer
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise NotNow(f"{method} {path}: {error}") from error


def _message(answer: object) -> str:
    return str(answer.get("message")) if isinstance(answer, dict) else str(answer)
