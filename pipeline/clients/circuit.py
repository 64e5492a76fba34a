"""A circuit breaker around a provider: what concerns all calls is found out by one of them, not by each.

It opens for a refused key or a spent quota at once, and for `TRIPS` failures in a row. While it is open, calls are
deferred without being made. When its time is over, one call every `PROBE_SECONDS` is let through, until one succeeds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from pipeline.clients.llm_failures import DOWN, HOLDING
from pipeline.core.errors import Defer, Retry
from pipeline.core.ports import ChatAnswer, ChatCall, ChatModel, Clock

T = TypeVar("T")

TRIPS = 10
"""Failures in a row that mean that the provider is down."""
PROBE_SECONDS = 2.0
"""While an open circuit looks for life, the time between two calls."""
SHORTEST, LONGEST = 5.0, 120.0
"""Seconds that a provider which is down is left alone: about as long as it has been down already."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """The breaker's state; pure, with the time (seconds since the epoch) passed in. `since` None means closed."""

    failures: int = 0
    since: float | None = None
    until: float = 0.0
    reason: str = ""

    @property
    def tripped(self) -> bool:
        """Whether calls are held back."""
        return self.since is not None

    def ask(self, now: float) -> tuple[Circuit, Defer | None]:
        """Ask for leave to make a call; returns the state afterwards, and why not."""
        if self.since is None:
            return self, None
        if now < self.until:
            return self, self.refusal()
        return replace(self, until=now + PROBE_SECONDS), None

    def refusal(self) -> Defer:
        """Why calls wait, and until when."""
        return Defer(f"the provider is held: {self.reason}", until=self.until, code="circuit_open")

    def succeed(self) -> Circuit:
        """Note a call that was answered, which closes the circuit."""
        return Circuit()

    def fail(self, now: float, reason: str) -> Circuit:
        """Note a call that failed as calls of a dead provider do."""
        failures = self.failures + 1
        if self.since is None and failures < TRIPS:
            return replace(self, failures=failures)
        since = now if self.since is None else self.since
        rest = min(max(now - since, SHORTEST), LONGEST)
        return Circuit(failures, since, max(self.until, now + rest), reason)

    def hold(self, now: float, until: float, reason: str) -> Circuit:
        """Note a refusal that concerns every call."""
        since = now if self.since is None else self.since
        return Circuit(self.failures, since, max(self.until, until), reason)


class Breaker:
    """A circuit breaker for calls of any kind, all of one provider."""

    def __init__(self, clock: Clock) -> None:
        """Start with a closed circuit."""
        self._clock = clock
        self._circuit = Circuit()

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call, or raise Defer where the provider is held; else raises what the call raises."""
        probing = self._circuit.tripped
        self._circuit, refused = self._circuit.ask(self._clock())
        if refused:
            raise refused
        try:
            answer = await call()
        except Defer as deferred:
            if deferred.code in HOLDING:
                self._circuit = self._circuit.hold(self._clock(), deferred.until, deferred.reason)
            raise
        except Retry as failed:
            if failed.code in DOWN:
                self._fail(failed, probing=probing)
            raise
        self._circuit = self._circuit.succeed()
        return answer

    def _fail(self, failed: Retry, *, probing: bool) -> None:
        self._circuit = self._circuit.fail(self._clock(), failed.reason)
        if self._circuit.tripped and not probing:
            # An outage is nobody's attempt. A probe's failure still is: its request may be what breaks the provider.
            raise self._circuit.refusal() from failed


class GuardedModel:
    """A chat model behind a circuit breaker."""

    def __init__(self, model: ChatModel, clock: Clock) -> None:
        """Guard `model`; the circuit is closed."""
        self._model = model
        self._breaker = Breaker(clock)

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Make one call, or raise Defer where the provider is held; else raises what the model raises."""
        return await self._breaker.run(lambda: self._model.complete(call))
