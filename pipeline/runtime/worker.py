"""A worker: the stages of one process, run side by side. One that halts stops alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.core.errors import Halt
from pipeline.runtime.collector import unhurried
from pipeline.runtime.runner import Runner


class Worker:
    """Runs stages until stopped. `run` returns 0 after a clean stop, 1 where any stage halted."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        """Take the stages to run."""
        self.runners = runners
        self._asked = False

    def stop(self) -> None:
        """Ask every stage to drain. Returns at once; asking again changes nothing."""
        self._asked = True
        for runner in self.runners:
            runner.stop()

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked

    async def run(self) -> int:
        """Run all stages to their end. Raises what is neither a stop nor a halt, after the others have drained."""
        with unhurried():
            endings = await asyncio.gather(*(self._watched(runner) for runner in self.runners), return_exceptions=True)
        unexpected = [
            ending for ending in endings if isinstance(ending, BaseException) and not isinstance(ending, Halt)
        ]
        if unexpected:
            raise unexpected[0]
        return int(any(isinstance(ending, Halt) for ending in endings))

    async def _watched(self, runner: Runner) -> None:
        try:
            await runner.run()
        except Halt:
            # Reported by the runner itself; the exit code tells the rest.
            raise
        except BaseException:
            self.stop()
            raise
