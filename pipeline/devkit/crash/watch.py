"""Each start of a handler, judged as it happens: whether it is its turn, and nobody forbids it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.core.control import Admit, Refuse, Verdict
from pipeline.core.event import Event
from pipeline.core.record import Partition
from pipeline.core.stage import Stage
from pipeline.devkit.clock import EPOCH
from pipeline.devkit.crash.network import Host, Network
from pipeline.devkit.crash.operator import HEARD, Operator
from pipeline.devkit.crash.outside import Outside

PAUSED = "paused work does not begin"
CANCELLED = "cancelled work does not begin"
LATE = "nothing begins after its deadline"
ONE = "one record of a key at a time"

_Line = tuple[str, Partition, int, bytes]


class Watch:
    """Hears from the stages of one process. `held` is what each has in hand, by its name."""

    def __init__(self, host: Host, network: Network, operator: Operator, outside: Outside) -> None:
        """Watch one life of a process."""
        self.held: dict[str, Mapping[str, float]] = {}
        self._host = host
        self._network = network
        self._operator = operator
        self._outside = outside
        self._running: set[_Line | None] = set()

    def gauges(self, stage: str, values: Mapping[str, float]) -> None:
        """Hear what a stage has in hand."""
        self.held[stage] = values

    @contextmanager
    def handling(self, stage: Stage, event: Event[Any], known: Verdict) -> Iterator[None]:
        """Judge a handler that runs; `known` is what the process itself knows of commands. Raises a bug's error."""
        if self._host.silent:
            yield
            return
        self._judge(stage, event, known)
        self._outside.stumble(stage.name, event.id)
        line = self._line(stage, event)
        if line is not None and line in self._running:
            self._broken(ONE, f"{stage.name} begins {event.origin.position} beside another of its key", event)
        self._running.add(line)
        try:
            yield
        finally:
            self._running.discard(line)

    def _judge(self, stage: Stage, event: Event[Any], known: Verdict) -> None:
        now = asyncio.get_running_loop().time()
        where = f"{stage.name} begins {event.origin.position}"
        if isinstance(known, Refuse):
            if not stage.outcomes:
                self._broken(CANCELLED, f"{where}, and knows that its job is cancelled", event)
        elif not isinstance(known, Admit):
            self._broken(PAUSED, f"{where}, and knows of a pause: {known.reason}", event)
        elif self._host.troubled + HEARD < now:
            self._must_know(stage, event, where)
        deadline = event.job.deadline_ms
        if stage.enforce_deadline and deadline is not None and (EPOCH + now) * 1000 >= deadline:
            self._broken(LATE, f"{where} after the deadline of its job", event)

    def _must_know(self, stage: Stage, event: Event[Any], where: str) -> None:
        """Judge by what was commanded, where nothing has kept this process from hearing of it."""
        if held := self._operator.holds(stage.name, event.job):
            self._broken(PAUSED, f"{where} {HEARD:g} s after a pause: {held}", event)
        if self._operator.calls_off(event.job) and not stage.outcomes:
            self._broken(CANCELLED, f"{where} {HEARD:g} s after its job was cancelled", event)

    def _line(self, stage: Stage, event: Event[Any]) -> _Line | None:
        """Name the queue in which an event has its place; None where it has none, or gave it up in a tier."""
        topic, number, _ = event.origin.position
        moved = not stage.retry.in_place and (event.tries.attempts or event.tries.deferrals)
        source = self._network.ledger.at(str(event.origin.position))
        if stage.order != "key" or moved or source is None or source.record.key is None:
            return None
        partition = Partition(topic, number)
        return stage.name, partition, self._host.epochs[partition], source.record.key

    def _broken(self, rule: str, text: str, event: Event[Any]) -> None:
        self._network.ledger.break_(rule, f"{self._host.process.name}: {text}", event.job.id)
