"""librdkafka's own log lines, as lines of ours: never on stderr by themselves, and not twenty a second in an outage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.telemetry import logs

QUIET_SECONDS = 10.0

_WARNING = 30
_INFO = 20

# A property for producers that a consumer was given (or the reverse) is passed over, as everybody expects.
_EXPECTED = "property and will be ignored by this"


class Lines(Protocol):
    """Where lines go; a structlog logger is one."""

    def log(self, level: int, event: str, **fields: object) -> object:
        """Write one line; `level` is one of `logging`."""
        ...


@dataclass(slots=True)
class _Recent:
    """When a facility last spoke, and how many of its lines were held back since."""

    at: float
    held_back: int = 0


class ClientLog:
    """What the clients take as their `logger`. A facility (FAIL, GETPID, ...) speaks once in `QUIET_SECONDS`.

    Called on whatever thread polls the client.
    """

    def __init__(self, lines: Lines | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `lines`, by default the process's log. `clock` is in seconds."""
        self._lines = lines or logs.get()
        self._clock = clock
        self._recent: dict[tuple[str, str], _Recent] = {}

    def log(self, level: int, _format: str, facility: str, client: str, text: str) -> None:
        """Write a line, unless this client's facility has just spoken. Called by the client with these arguments."""
        if _EXPECTED in text:
            return
        now = self._clock()
        recent = self._recent.get((facility, client))
        if recent is not None and now - recent.at < QUIET_SECONDS and level >= _INFO:
            recent.held_back += 1
            return
        self._recent[facility, client] = _Recent(now)
        held_back = {"held_back": recent.held_back} if recent is not None and recent.held_back else {}
        # A broker that is away is no error of this process: it waits.
        number = min(level, _WARNING) if facility == "FAIL" else level
        self._lines.log(number, text, action="kafka_client", facility=facility, client=client, **held_back)
