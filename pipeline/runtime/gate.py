"""The gate: what becomes of a stage's records that may not be handled now, or never. It asks the port `Admission`.

A record is asked for when its turn has come, before it takes a slot, and once more when it is decoded: what an outsider
wrote tells its tenant in its value only. All that is in memory is asked for again when the answers change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pipeline.core.control import PAUSED, Admit, Hold, Refuse
from pipeline.core.errors import Defer, Fail
from pipeline.core.event import Event
from pipeline.core.payloads import Payload
from pipeline.core.ports import Admission
from pipeline.core.record import Partition
from pipeline.core.retry import IN_PLACE_SECONDS
from pipeline.runtime.assignment import Assignment
from pipeline.runtime.attempt import Attempt
from pipeline.runtime.dispatch import Dispatch
from pipeline.runtime.intake import Intake
from pipeline.runtime.work import Item
from pipeline.runtime.workers import Workers

STAGE_PAUSED = "the stage is paused"
ELSEWHERE_SECONDS = 60.0
"""How long a held record without a place here stays in a tier, and so how late it may hear of its release."""


class Gate:
    """Holds and refuses items of one stage. `alert` is False while nobody need ask: all that the usual record costs.

    Work that is held as a whole stays where it is, and its partitions are paused. Of other work a quarter of the window
    waits in place, for 30 s, and the rest in tiers.
    """

    def __init__(self, admission: Admission, attempt: Attempt, assignment: Assignment, dispatch: Dispatch) -> None:
        """Tie the parts together; `attach` must follow. `holding` tells of each held item since when it is.

        `needs_no_call` is asked of a costly stage's items: what is answered, or is about to be, is let through.
        """
        self.alert = False
        self.needs_no_call: Callable[[Item, Event[Payload]], bool] = lambda *_: False
        self.reason = ""
        self.holding: dict[Item, float] = {}
        self._admission = admission
        self._attempt = attempt
        self._assignment = assignment
        self._dispatch = dispatch
        self._stage = assignment.plan.stage
        self._workers: Workers
        self._intake: Intake

    def attach(self, workers: Workers, intake: Intake) -> None:
        """Take up the work: from now on nothing gets by."""
        self._workers, self._intake = workers, intake
        self._dispatch.gate = self
        intake.gate = self
        workers.gate = self
        self._assignment.gates.append(self._gate)
        self._admission.watch(self.changed)
        self.changed()

    # -------------------------------------------------------------- one record

    def refuses(self, item: Item) -> bool:
        """End an item that has just been taken, if its job is cancelled; True where nothing else is to be done."""
        if isinstance(verdict := self._ask(item), Refuse):
            self._refuse(item, verdict)
        return item.refusal is not None

    def stops(self, item: Item) -> bool:
        """Hold or end an item whose turn has come; True where it may not be handled."""
        if item.refusal is not None:
            # Its failure event could not be encoded before.
            self._workers.conclude_untried(item, item.refusal)
            return True
        match self._ask(item):
            case Hold(reason):
                self._hold(item, reason)
                return True
            case Refuse() as verdict:
                self._refuse(item, verdict)
                return True
        self.holding.pop(item, None)
        return False

    def check(self, item: Item, event: Event[Payload]) -> None:
        """Ask for a decoded record, right before its handler. Raises Fail or Defer."""
        item.job = event.job
        if item.refusal is not None:
            raise item.refusal
        match self._ask(item):
            case Refuse() as verdict:
                item.refusal = _failure(verdict)
                raise item.refusal
            case Hold(reason):
                raise self._deferral(item, reason)

    def forget(self, item: Item) -> None:
        """Drop an item that has come to its end or whose partition has gone."""
        self.holding.pop(item, None)

    # -------------------------------------------------------------- all of them

    def changed(self) -> None:
        """Ask again for all that is in memory."""
        self.reason = self._admission.whole(self._stage.name)
        self.alert = self.alert or not self._admission.quiet
        if not self.alert:
            return
        change = self._assignment.pause if self.reason else self._assignment.resume
        for part in self._assignment.parts.values():
            change(part, STAGE_PAUSED)
        for item in self._in_hand():
            if isinstance(verdict := self._ask(item), Refuse):
                self._refuse(item, verdict)
        self._ask_again()
        # Until the failure events of refused ones are written.
        self.alert = not self._admission.quiet or any(item.refusal is not None for item in self._unsettled())

    def _ask_again(self) -> None:
        """Take back what is ready, in case it is to be held; let go what is held, in case it need not be."""
        for feed in self._assignment.feeds.values():
            ready = list(feed.ready)
            feed.ready.clear()
            feed.window.ready = 0
            for item in ready:
                self._dispatch.push(item)
        for item in list(self.holding):
            # One whose copy is on its way to a tier has its end: handled as well, it would have two.
            ending = item.owed or item in self._workers.running
            if not ending and not isinstance(self._ask(item), Hold):
                self._workers.withdraw(item)
                del self.holding[item]
                self._dispatch.push(item)

    def _in_hand(self) -> Sequence[Item]:
        return [item for item in self._unsettled() if not item.owed and item.refusal is None]

    def _unsettled(self) -> Iterator[Item]:
        """Go through what is in memory and not at its end, calls that were handed over included.

        Of an early part only what runs or waits: the rest of it is not begun, or settled in advance.
        """
        for part in self._assignment.parts.values():
            if not part.early:
                yield from part.unsettled()
        yield from (item for item in (*self._workers.running, *self._workers.resting) if item.part.early or item.fate)

    def _gate(self, _: Partition) -> str | None:
        return STAGE_PAUSED if self.reason else None

    # -------------------------------------------------------------- verdicts

    def _ask(self, item: Item) -> object:
        verdict = self._admission.verdict(self._stage.name, item.job or self._attempt.bare(item).job)
        if isinstance(verdict, Admit):
            return None
        if self.needs_no_call(item, self._attempt.bare(item)):
            return None
        # An outcome is told whatever was said of its job: that had come to its end before.
        return None if isinstance(verdict, Refuse) and self._stage.outcomes else verdict

    def _refuse(self, item: Item, verdict: Refuse) -> None:
        item.refusal = _failure(verdict)
        self.holding.pop(item, None)
        if item.task is not None:
            item.task.cancel()
        elif item not in self._workers.running:
            self._workers.withdraw(item)
            self._intake.withdraw(item)
            self._dispatch.withdraw(item)
            self._workers.conclude_untried(item, item.refusal)

    def _hold(self, item: Item, reason: str) -> None:
        now, job = self._attempt.clock(), item.job or self._attempt.bare(item).job
        stays = self._stays(item, now)
        self.holding.setdefault(item, now)
        limit = job.deadline_ms / 1000 if self._stage.enforce_deadline and job.deadline_ms is not None else None
        if limit is not None and limit <= now:
            late = Fail(f"the job's deadline has passed while it was held: {reason}", code="deadline")
            self._workers.conclude_untried(item, late)
        elif stays:
            until = now + IN_PLACE_SECONDS
            self._workers.rest(item, until if limit is None else min(until, limit))
        else:
            self._workers.conclude_untried(item, Defer(reason, until=now + ELSEWHERE_SECONDS, code=PAUSED))

    def _stays(self, item: Item, now: float) -> bool:
        """Whether a held item waits in place. One that was committed early may not: a stop would lose it."""
        if item.part.early:
            return False
        if self.reason:
            return True
        room = self._workers.waiting < item.part.feed.window.limits.in_place_share
        return room and now - self.holding.get(item, now) < IN_PLACE_SECONDS

    def _deferral(self, item: Item, reason: str) -> Defer:
        now = self._attempt.clock()
        stays = self._stays(item, now)
        self.holding.setdefault(item, now)
        return Defer(reason, until=now + (IN_PLACE_SECONDS if stays else ELSEWHERE_SECONDS), code=PAUSED)


def _failure(verdict: Refuse) -> Fail:
    return Fail(verdict.reason, code=verdict.code)
