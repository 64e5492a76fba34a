"""The port `EndpointBook` on the control topic: what all workers know of the webhook endpoints, and who writes it.

A worker hears of an endpoint by its own attempts and by the topic. What it writes counts for itself at once, so that a
thousand attempts that fail together write one record; for the others it counts once they have read it. Two workers that
write at the same moment write the same, or the later one counts: the next attempt puts that right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from pipeline.core import names
from pipeline.core.control import DISABLED, FAILING, ControlState, endpoint_key
from pipeline.core.endpoints import EndpointState, Heard, state_of, transition
from pipeline.core.errors import Outcome
from pipeline.core.payloads import Audit, Control, Payload
from pipeline.core.ports import Clock, Codec, Producer
from pipeline.core.record import Outgoing
from pipeline.telemetry import logs
from pipeline.telemetry.metrics import EndpointMetrics

CONTROL, AUDIT = "control", "audit"
READ_SECONDS = 10.0
"""How long what was written here counts before it is read back: longer only where another worker has undone it."""
WROTE_DISABLED = "endpoint.disabled"
"""The action of the audit record, and of the line in the log: it is the operational event of a disabled endpoint."""


class InForce(Protocol):
    """Whoever follows the control topic."""

    @property
    def state(self) -> ControlState:
        """What is in force."""
        ...


@dataclass(frozen=True, slots=True)
class BookPorts:
    """What a book reads and writes with. `control` is what is in force, as of the last record read."""

    control: InForce
    producer: Producer
    codec: Codec
    prefix: str
    clock: Clock


class _Told(NamedTuple):
    """What was written here and is not read back yet: `instead` of what, and what. It counts `until` then at most."""

    instead: Control | None
    entry: Control | None
    until: float


@dataclass
class ControlBook:
    """Knows the endpoints of `days`: after so many days of failure each is disabled.

    Before `connect` every endpoint is open, and nothing is written of what is heard.
    """

    days: Mapping[str, float]
    metrics: EndpointMetrics
    _ports: BookPorts | None = None
    _told: dict[str, _Told] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Let the gauges follow."""
        for name in self.days:
            self.metrics.disabled.labels(name).set_function(partial(self._gauge, name))

    def connect(self, ports: BookPorts) -> None:
        """Begin to read and to write."""
        self._ports = ports

    # -------------------------------------------------------------- the port

    def state(self, name: str) -> EndpointState:
        """Tell what is known of an endpoint; see the port."""
        return state_of(self._standing(name))

    async def heard(self, name: str, heard: Heard, now: float) -> None:
        """Hear how an attempt went; see the port."""
        ports = self._ports
        before = self._standing(name)
        change = transition(name, before, heard, now, self.days.get(name, float("inf")))
        if change is None or ports is None:
            return
        self._told[name] = _Told(ports.control.state.endpoints.get(name), change.entry, ports.clock() + READ_SECONDS)
        try:
            await self._send(ports, name, CONTROL, endpoint_key(name).encode(), change.entry)
            if change.entry is not None and change.entry.state == DISABLED:
                await self._send(ports, name, AUDIT, name.encode(), _audit(change.entry))
        except Outcome as error:
            # An attempt was made, and how it ended must be told: the book is written by the next one.
            self._refused(name, error)
            return
        _say(name, before, change.entry)

    # -------------------------------------------------------------- within

    def _standing(self, name: str) -> Control | None:
        if self._ports is None:
            return None
        entry, told = self._ports.control.state.endpoints.get(name), self._told.get(name)
        if told is None:
            return entry
        if entry == told.instead and self._ports.clock() < told.until:
            return told.entry
        # Whatever was read since then is newer than what was written here, or the same.
        del self._told[name]
        return entry

    async def _send(self, ports: BookPorts, name: str, noun: str, key: bytes, payload: Payload | None) -> None:
        value = None if payload is None else await ports.codec.encode(noun, payload)
        ports.producer.send(Outgoing(names.topic(ports.prefix, noun), key, value), partial(self._acknowledged, name))

    def _acknowledged(self, name: str, error: Exception | None) -> None:
        if error is not None:
            self._refused(name, error)

    def _refused(self, name: str, error: Exception) -> None:
        self._told.pop(name, None)
        logs.get().error(
            f"what was heard of the webhook endpoint {name!r} could not be written: {error}",
            action="endpoint.unwritten",
            endpoint=name,
        )

    def _gauge(self, name: str) -> float:
        return 0.0 if self.state(name).open else 1.0


def _audit(entry: Control) -> Audit:
    return Audit(
        action=WROTE_DISABLED,
        subject=entry.endpoint or "",
        operator=entry.operator,
        reason=entry.reason,
        at_ms=entry.at_ms,
    )


def _say(name: str, before: Control | None, entry: Control | None) -> None:
    if entry is None:
        since = f"; it had failed: {before.reason}" if before and before.reason else ""
        logs.get(endpoint=name).info(f"the webhook endpoint {name!r} answers again{since}", action="endpoint.recovered")
    elif entry.state == FAILING:
        logs.get(endpoint=name).warning(
            f"the webhook endpoint {name!r} fails: {entry.reason}", action="endpoint.failing"
        )
    else:
        logs.get(endpoint=name).error(
            f"the webhook endpoint {name!r} is disabled: {entry.reason}. Its messages are undeliverable until "
            "`pipeline endpoints enable`; `pipeline deliveries resend` sends them then",
            action=WROTE_DISABLED,
        )
