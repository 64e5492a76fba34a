"""A stand-in for the book of webhook endpoints: one that all workers of a test read, in memory."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core.control import DISABLED
from pipeline.core.endpoints import EndpointState, Heard, disabling, state_of, transition
from pipeline.core.payloads import Control

DAYS = 5.0


class FakeEndpointBook:
    """Keeps what it hears in `standing`; `audited` names the endpoints that it disabled, in order."""

    def __init__(self, days: Mapping[str, float] | None = None) -> None:
        """Disable each endpoint after its `days` of failure; five unless told."""
        self.standing: dict[str, Control] = {}
        self.audited: list[str] = []
        self.heard_of: list[tuple[str, Heard]] = []
        self._days = days or {}

    def state(self, name: str) -> EndpointState:
        """Tell what is known of an endpoint; see the port."""
        return state_of(self.standing.get(name))

    async def heard(self, name: str, heard: Heard, now: float) -> None:
        """Hear how an attempt went; see the port."""
        self.heard_of.append((name, heard))
        change = transition(name, self.standing.get(name), heard, now, self._days.get(name, DAYS))
        if change is None:
            return
        self.standing.pop(name, None)
        if change.entry is not None:
            self.standing[name] = change.entry
            self.audited += [name] * (change.entry.state == DISABLED)

    def disable(self, name: str, operator: str, reason: str, now: float) -> None:
        """Disable an endpoint as a person does."""
        self.standing[name] = disabling(name, operator, reason, now)

    def enable(self, name: str) -> None:
        """Enable an endpoint as a person does."""
        self.standing.pop(name, None)
