"""Control: the compacted topic, read whole and then followed, as the port `Admission` of every stage of this process.

It never stops a worker: junk on the topic is passed over with a warning, and a topic that is missing is said and
waited for beside the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from pipeline.core.control import ControlState, Entry, Verdict, problem
from pipeline.core.job import Job
from pipeline.core.patch import overridden
from pipeline.core.payloads import Control
from pipeline.core.ports import Clock, Codec, Reader
from pipeline.core.record import Partition, Record
from pipeline.core.retry import describe
from pipeline.telemetry import logs

NOUN = "control"
FETCH_RECORDS, FETCH_SECONDS = 500, 1.0
AGAIN_SECONDS = 5.0


class ControlTopic:
    """What is in force, as of the last record read. `model_of` names the model that answers an event type."""

    def __init__(self, topic: str, reader: Reader, codec: Codec, clock: Clock, model_of: Callable[[str], str]) -> None:
        """Read nothing yet."""
        self.state = ControlState()
        self.missing = False
        self._where = Partition(topic, 0)
        self._reader = reader
        self._codec = codec
        self._clock = clock
        self._model_of = model_of
        self._watchers: list[Callable[[], None]] = []

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self._where.topic

    # -------------------------------------------------------------- the port

    @property
    def quiet(self) -> bool:
        """Whether nothing is in force."""
        return self.state.quiet

    def whole(self, stage: str) -> str:
        """Say why all work of a stage is paused."""
        return self.state.whole(stage)

    def verdict(self, stage: str, job: Job) -> Verdict:
        """Say whether a record of `job` may be handled by `stage` now."""
        model = (job.overrides and overridden(job.overrides).model) or self._model_of(job.type)
        return self.state.verdict(stage, job, model, self._clock())

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each change."""
        self._watchers.append(changed)

    # -------------------------------------------------------------- reading

    async def begin(self) -> None:
        """Read all there is: what was paused before a restart is paused after it, from the first record on."""
        ends = await self._reader.ends([self._where])
        end = ends.get(self._where)
        self._reader.follow(self._where, 0)
        if end is None:
            self.missing = True
            logs.get().warning(
                f"{self._where.topic} does not exist: this worker goes on, and cannot be paused nor can its jobs be"
                " cancelled before `pipeline topics create` has made it",
                action="control.missing",
            )
        while end and self._reader.positions().get(self._where, 0) < end:
            await self._read()

    async def follow(self) -> None:
        """Read what comes, for ever."""
        while True:
            try:
                await self._read()
            except Exception as error:
                logs.get().error(
                    f"{self._where.topic} cannot be read, so pauses and cancellations are not heard of: "
                    f"{describe(error)}",
                    action="control.unreadable",
                )
                await asyncio.sleep(AGAIN_SECONDS)

    async def _read(self) -> None:
        records = await self._reader.fetch(FETCH_RECORDS, FETCH_SECONDS)
        if records:
            before, entries = self.state, await self._entries(records)
            self.state = before.fold(entries, self._clock())
            if self.state != before:
                for changed in self._watchers:
                    changed()

    async def _entries(self, records: Sequence[Record]) -> list[Entry]:
        found = [await self._entry(record) for record in records]
        return [entry for entry in found if entry is not None]

    async def _entry(self, record: Record) -> Entry | None:
        """Read one entry; None for what is none."""
        key = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            return key, None
        try:
            control = await self._codec.decode(NOUN, Control, record.value)
        except Exception as error:
            wrong = describe(error)
        else:
            wrong = problem(key, control)
            if not wrong:
                return key, control
        logs.get().warning(f"control: {record.position} is ignored: {wrong}", action="control.ignored", key=key[:200])
        return None


@asynccontextmanager
async def followed(control: ControlTopic) -> AsyncIterator[ControlTopic]:
    """Read all there is, and follow the topic while the block runs."""
    await control.begin()
    task = asyncio.create_task(control.follow())
    try:
        yield control
    finally:
        task.cancel()
        await asyncio.wait({task})
