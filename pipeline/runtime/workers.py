"""Workers: long-lived tasks that pull items, try them, and bring them to the end their outcome leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

from pipeline.core.errors import Defer, Halt, Outcome, Reject
from pipeline.core.event import Event
from pipeline.core.job import Job
from pipeline.core.payloads import Nothing, Payload
from pipeline.core.retry import DeadLetter, FailJob, StopStage, Wait, decide, describe, spread, tier_for
from pipeline.runtime.attempt import Attempt, contained
from pipeline.runtime.dispatch import Dispatch
from pipeline.runtime.follow import Follower
from pipeline.runtime.gatekeeper import Gatekeeper, Open
from pipeline.runtime.intake import Intake
from pipeline.runtime.observe import Observer
from pipeline.runtime.settle import Settler
from pipeline.runtime.waiting import WaitingRoom
from pipeline.runtime.work import Item


class Verdicts(Protocol):
    """Who decides about the stage as a whole."""

    def halt(self, halt: Halt) -> None:
        """Stop the stage."""
        ...

    def may_die(self, reason: str) -> bool:
        """Whether a record may become a dead letter; the stage halts where not."""
        ...


CANCEL_SECONDS = 1.0
CANCEL_ROUNDS = 3
REPEAT_SECONDS = 0.2
"""How soon a repetition asks again whether the call for its event has ended."""


class Workers:
    """A pool as large as the stage's concurrency, grown as work arrives. `verdicts` hears when the stage must stop."""

    def __init__(
        self,
        attempt: Attempt,
        settler: Settler,
        intake: Intake,
        dispatch: Dispatch,
        observer: Observer,
        verdicts: Verdicts,
    ) -> None:
        """Tie the parts together; no worker exists yet."""
        self.gate: Gatekeeper = Open()
        self.running: set[Item] = set()
        self._plan = attempt.plan
        self._attempt = attempt
        self._settler = settler
        self._intake = intake
        self._dispatch = dispatch
        self._clock = attempt.clock
        self._observer = observer
        self._verdicts = verdicts
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: WaitingRoom[Item] = WaitingRoom(attempt.clock)
        self._hired = 0
        self._closed = False
        self.follower: Follower | None = None
        dispatch.starved = self._hire

    def conclude_later(self, item: Item, error: Exception) -> None:
        """Bring an item to another end, after the broker has refused the one it had."""
        if self._closed:
            return
        self.running.add(item)
        self._start(self._again(item, error))

    def conclude_untried(self, item: Item, error: Exception) -> None:
        """Bring an item whose turn has come to the end that `error` leads to, as if its try had raised it."""
        if self._closed:
            return
        self.running.add(item)
        self._start(self._untried(item, error))

    def rest(self, item: Item, until: float) -> None:
        """Let an item whose turn has come wait in place until a time (seconds since the epoch)."""
        self._waiting.wait(item, until, self._dispatch.push)

    @property
    def resting(self) -> Iterable[Item]:
        """What waits in place."""
        return self._waiting

    def withdraw(self, item: Item) -> None:
        """End an item's wait in place, if it waits."""
        self._waiting.forget(item)

    def forget(self, item: Item) -> None:
        """Drop an item whose partition has gone; a try that runs goes on, and its result will be stale.

        An answer that is there and waits to be encoded stays: it is paid for.
        """
        if item.payloads is None:
            self._waiting.forget(item)

    @property
    def busy(self) -> bool:
        """Whether a try or a settlement runs."""
        return bool(self.running)

    @property
    def waiting(self) -> int:
        """How many deferred records wait in place."""
        return len(self._waiting)

    def doing(self, item: Item) -> str:
        """Say in words what an unsettled item is at."""
        if item in self._waiting:
            return "it waits in place for its next try"
        if item in self.running:
            return "its handler runs"
        return "what it led to is not acknowledged" if item.owed else "it waits for its turn"

    async def close(self) -> None:
        """Cancel what still runs; it stays unsettled. A handler that swallows a few cancellations is left alone."""
        self._closed = True
        self._waiting.clear()
        for _ in range(CANCEL_ROUNDS):
            if self._tasks:
                for task in self._tasks:
                    task.cancel()
                await asyncio.wait(self._tasks, timeout=CANCEL_SECONDS)

    # -------------------------------------------------------------- one item

    async def _work(self) -> None:
        while not self._closed:
            item = await self._dispatch.take()
            self.running.add(item)
            try:
                await self._try(item)
            finally:
                self.running.discard(item)

    async def _try(self, item: Item) -> None:
        if self.follower is not None and self.follower.parks(item):
            return
        event: Event[Payload] | None = None
        try:
            with contained():
                if not self._answered(item):
                    event = await self._attempt.decode(item)
                    if isinstance(event.payload, Nothing):
                        self._ignore(item, event.payload)
                    elif not self._answered(item, event) and self._claimed(item, event):
                        payloads = await self._call(item, event)
                        if item.ours:
                            await self._settler.outputs(item, event, payloads)
                            item.payloads = None
        except Exception as error:
            if item.ours:
                event = event or self._attempt.bare(item)
                known = self._plan.stage.enforce_deadline and item.payloads is None
                await self._conclude(item, event, error, event.job if known else None)
        item.until = 0.0
        if self.follower is not None and event is not None:
            self.follower.done(item, event)
        if item not in self._waiting:
            self._intake.release(item)

    def _answered(self, item: Item, event: Event[Payload] | None = None) -> bool:
        """Settle a record whose answer is written already; asked right before its call."""
        if self.follower is None or item.payloads is not None or not self.follower.answered(item, event):
            return False
        self._settler.answered(item)
        return True

    def _ignore(self, item: Item, nothing: Nothing) -> None:
        """Settle a record that asks for nothing: no handler is called, so there is no try."""
        if item.ours:
            self._observer.ignored(self._plan, self._attempt.foreign_topic(item), nothing.why)
            self._settler.ignored(item)

    def _claimed(self, item: Item, event: Event[Payload]) -> bool:
        """Let a repetition wait while another record of the same event is paid for; then it is looked at again."""
        if self.follower is None or self.follower.claims(item, event):
            return True
        self._waiting.wait(item, self._clock() + REPEAT_SECONDS, self._dispatch.push)
        return False

    async def _call(self, item: Item, event: Event[Payload]) -> Sequence[Payload]:
        """Call the handler, unless it has returned already and only what it returned could not be written."""
        if item.payloads is not None:
            return item.payloads
        if self.gate.alert:
            self.gate.check(item, event)
        if self.follower is not None:
            item.until = self._clock() + self._plan.stage.timeout
        with self._observer.trying(self._plan, event):
            payloads = await self._attempt.handle(event, item)
        if self.follower is not None:
            item.payloads = payloads
        return payloads

    async def _again(self, item: Item, error: Exception) -> None:
        try:
            if item.part.alive:
                event = await self._known(item)
                if self.follower is not None:
                    self.follower.refused(item, event)
                await self._conclude(item, event, error, None)
        finally:
            self.running.discard(item)

    async def _untried(self, item: Item, error: Exception) -> None:
        try:
            if item.ours:
                event = await self._known(item)
                await self._conclude(item, event, error, event.job if self._plan.stage.enforce_deadline else None)
        finally:
            self.running.discard(item)
        if item not in self._waiting:
            self._intake.release(item)

    async def _known(self, item: Item) -> Event[Payload]:
        try:
            return await self._attempt.decode(item)
        except Outcome:
            return self._attempt.bare(item)

    async def _conclude(self, item: Item, event: Event[Payload], error: Exception, job: Job | None) -> None:
        """Bring an item to the end that `error` leads to. `job` is given where its deadline may end a wait."""
        policy, jitter = self._plan.stage.retry, spread(event.id, event.tries.attempts)
        decision = decide(error, event.tries, policy, self._clock(), job, jitter)
        if item.fate == "lost" and not isinstance(decision, FailJob | Wait) and item.payloads is None:
            return
        self._observer.concluded(self._plan, event, decision, error)
        try:
            if item.emitted:
                await self._settler.tell(item, event)
            match decision:
                case StopStage(reason):
                    self._verdicts.halt(Halt(reason))
                case FailJob():
                    await self._settler.failure(item, event, decision)
                case DeadLetter():
                    if self._verdicts.may_die(decision.reason):
                        await self._settler.dead_letter(item, event, decision, error)
                case _:
                    self._wait(item, event, decision)
        except Defer as away:
            # The failure event cannot be encoded now. No deadline ends this wait: that would take an event as well.
            await self._conclude(item, event, away, None)
        except Outcome as unfit:
            await self._conclude(item, event, Reject(unfit.reason, code=unfit.code), None)

    def _wait(self, item: Item, event: Event[Payload], decision: Wait) -> None:
        short = decision.in_place or tier_for(decision.not_before - self._clock(), self._plan.stage.retry.tiers) is None
        if not item.part.alive and item.payloads is None:
            # Handed over, it cannot wait here; its next owner waits for this copy. Lost, it is somebody else's.
            if item.fate == "handed" and not self._plan.stage.retry.in_place:
                self._settler.retry(item, event, decision)
            return
        room = len(self._waiting) < item.part.feed.window.limits.in_place_share
        # A paid answer is kept here until it can be written: elsewhere it would be paid for again.
        if self._plan.stage.retry.in_place or (short and room) or item.payloads is not None:
            item.tries = decision.tries
            if item.told:
                self._settler.tell_now(item)
            self._waiting.wait(item, decision.not_before, self._dispatch.push)
        else:
            self._settler.retry(item, event, decision)

    # -------------------------------------------------------------- tasks

    def _hire(self) -> None:
        if self._hired < self._plan.stage.concurrency:
            self._hired += 1
            self._start(self._work())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not self._closed:
            self._verdicts.halt(Halt(f"a worker of {self._plan.stage.name} died of a bug: {describe(error)}"))
