"""The person in charge: pauses and resumes work, cancels jobs, lets topics grow, while everything runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any

from pipeline.core import names
from pipeline.core.control import ControlState, Hold, Verdict, key_of
from pipeline.core.job import Job, job_id
from pipeline.core.payloads import Control
from pipeline.core.record import Outgoing
from pipeline.devkit.clock import EPOCH
from pipeline.devkit.crash.built import Broker, Rehearsal
from pipeline.devkit.crash.faults import Fault
from pipeline.devkit.crash.network import Network
from pipeline.devkit.crash.script import Asked, catalog

HEARD = 3.0
"""Seconds after which every process that is not troubled has heard of a command."""


class Operator:
    """Carries out commands. `paused` tells since when each pause is in force, by its key; `cancelled`, which jobs."""

    def __init__(self, rehearsal: Rehearsal, broker: Broker, network: Network, asked: Sequence[Asked]) -> None:
        """Have done nothing yet."""
        self.paused: dict[str, tuple[float, Control]] = {}
        self.cancelled: dict[str, float] = {}
        self._rehearsal = rehearsal
        self._broker = broker
        self._network = network
        self._asked = asked
        self._chance: Random = network.chance
        self._tasks: set[asyncio.Task[None]] = set()

    def act(self, fault: Fault) -> None:
        """Begin one command."""
        self._network.ledger.say(_now(), "fault", str(fault).strip())
        match fault.kind:
            case "pause":
                self._begin(self._pause(fault))
            case "cancel":
                self._begin(self._cancel(self._asked[fault.count % len(self._asked)]))
            case _:
                self._begin(self._grow(fault))

    def holds(self, stage: str, job: Job) -> str:
        """Say why a stage may not handle a record of `job`, if everybody must know that by now."""
        known = {key: entry for key, (at, entry) in self.paused.items() if at + HEARD < _now()}
        if not known:
            return ""
        kinds = catalog().types
        model = kinds[job.type].model if job.type in kinds else ""
        verdict: Verdict = ControlState(known).verdict(stage, job, model, EPOCH + _now())
        return verdict.reason if isinstance(verdict, Hold) else ""

    def calls_off(self, job: Job) -> bool:
        """Whether a job is cancelled, and everybody must know that by now."""
        return self.cancelled.get(job.id, math.inf) + HEARD < _now()

    async def rest(self) -> None:
        """Resume all that is paused, and end what is under way."""
        for key in list(self.paused):
            await self._resume(key)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Do nothing any more."""
        for task in self._tasks:
            task.cancel()

    # -------------------------------------------------------------- commands

    async def _pause(self, fault: Fault) -> None:
        what, _, name = fault.flavour.partition(" ")
        entry = Control(state="paused", at_ms=0).model_copy(update={what: name} if name else {})
        key = key_of(entry)
        self.paused[key] = (_now(), entry)
        await self._tell(key, entry)
        asyncio.get_running_loop().call_later(fault.seconds, lambda: self._begin(self._resume(key)))

    async def _resume(self, key: str) -> None:
        if self.paused.pop(key, None) is not None:
            await self._tell(key, None)

    async def _cancel(self, asked: Asked) -> None:
        # Of a request that is sent twice one copy may be done when the other one is cancelled.
        if asked.request is None or asked.copies > 1:
            return
        job = job_id("default", "", asked.request.id or "")
        self._network.ledger.cancelled.add(job)
        self.cancelled.setdefault(job, _now())
        entry = Control(state="cancelled", job=job, at_ms=0)
        await self._tell(key_of(entry), entry)

    async def _tell(self, key: str, entry: Control | None) -> None:
        value = await self._rehearsal.codec.encode("control", entry) if entry else None
        topic = names.topic(self._rehearsal.prefix, "control")
        self._network.write(None, Outgoing(topic, key.encode(), value), key)

    async def _grow(self, fault: Fault) -> None:
        if fault.flavour:
            for topic in reversed(self._rehearsal.growing):
                await self._grown(topic, fault.count)
            return
        async for topic, _ in self._rehearsal.grow(self._broker, fault.count):
            await self._grown(topic, fault.count)

    async def _grown(self, topic: str, count: int) -> None:
        await self._broker.grow_topic(topic, count)
        self._network.ledger.grew(_now(), topic, count)
        self._network.ring(topic)
        await asyncio.sleep(0.4 * self._chance.random())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _now() -> float:
    return asyncio.get_running_loop().time()
