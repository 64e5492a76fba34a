"""What a stage has in hand: feeds, assigned partitions, and items. Mutable, and touched only on the event loop."""

from __future__ import annotations

from asyncio import Task
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.core.errors import Fail
from pipeline.core.headers import Tries
from pipeline.core.job import Job
from pipeline.core.offset_map import NOTHING, Progress
from pipeline.core.payloads import Payload
from pipeline.core.record import Commit, Outgoing, Partition, Record
from pipeline.core.retry import Tier
from pipeline.runtime.answers import Answers
from pipeline.runtime.keys import KeyQueues
from pipeline.runtime.offsets import Frontier, Taken
from pipeline.runtime.window import Window, WindowLimits


class Feed:
    """A source topic, or all retry tiers together: one window, one queue of records ready to be handled."""

    __slots__ = ("credit", "name", "ready", "weight", "window")

    def __init__(self, name: str, weight: int, limits: WindowLimits) -> None:
        """Begin empty."""
        self.name = name
        self.weight = weight
        self.credit = 0
        self.window = Window(limits)
        self.ready: deque[Item] = deque()


class Part:
    """One assignment of one partition: a new one each time it arrives, so a stale completion finds `alive` False.

    That is the assignment epoch: the broker does not fence commits by partition owner, so this object does.

    `early` commits come before the records are handled: those stay `uncommitted` until the broker has acknowledged it.
    From then on nobody else will ever handle them, so the work on them goes on even after the partition has gone.
    Nothing is begun for a part that is `leaving`. `pending` is how many of its records have room in the window and have
    led to nothing yet.
    """

    __slots__ = (
        "alive",
        "answers",
        "committed",
        "early",
        "feed",
        "frontier",
        "held",
        "jammed",
        "keys",
        "leaving",
        "name",
        "pauses",
        "pending",
        "tier",
        "uncommitted",
    )

    def __init__(
        self, name: Partition, feed: Feed, tier: Tier | None, former: Progress = NOTHING, *, early: bool = False
    ) -> None:
        """Begin with nothing taken. `former` is what the partition's last owner has left word of."""
        self.name = name
        self.feed = feed
        self.tier = tier
        self.alive = True
        self.leaving = False
        self.pending = 0
        self.answers: Answers[Item] | None = None
        self.frontier = Frontier(former.settled)
        self.keys: KeyQueues[Item] = KeyQueues()
        self.held: deque[Item] = deque()
        self.early = early
        self.uncommitted: deque[Item] = deque()
        self.jammed: set[bytes | None] = set()
        self.pauses: set[str] = set()
        self.committed: Commit | None = None

    def reading(self, position: int | None) -> int | None:
        """Tell where reading stands, no less than was committed: one past markers may be forgotten."""
        if self.committed is None:
            return position
        return max(self.committed.offset, position or 0)

    def unsettled(self) -> Iterator[Item]:
        """Go through the items still owed."""
        return (taken for taken in self.frontier.unsettled() if isinstance(taken, Item))

    def head(self) -> Item | None:
        """The record that holds the frontier; None where nothing does, or where it only waits for its tier."""
        head = next(self.unsettled(), None)
        return None if head is None or (self.held and self.held[0] is head) else head


class Item(Taken):
    """One taken record on its way to its one end. `tries` runs ahead of the record while it waits in place.

    `keyed` holds while it is in its key's queue: from there until its turn is over. `counted` holds while it takes room
    in its feed's window, `pending` until it has led to anything. `due` is when it leaves its tier, in seconds since the
    epoch.
    `job` is known once it is decoded. `task` runs its handler now; `refusal` is why it is to end, whatever that gives.
    `emitted` is what its try tells beside its outcome; encoded it is `told`, until it is handed to the producer.
    Of a costly call, `until` is when it ends at the latest, 0 while none runs, and `payloads` what it has returned.
    `fate` tells what becomes of it when its partition has gone: `handed` over it is finished to any end, `lost` it
    still writes an answer, since that is paid for.
    """

    __slots__ = (
        "counted",
        "due",
        "emitted",
        "end",
        "fate",
        "job",
        "keyed",
        "owed",
        "part",
        "payloads",
        "pending",
        "record",
        "refusal",
        "task",
        "told",
        "tries",
        "until",
    )

    def __init__(self, record: Record, part: Part) -> None:
        """Begin unsettled, with nothing owed to the broker yet."""
        super().__init__(record.offset)
        self.record = record
        self.part = part
        self.tries: Tries | None = None
        self.owed = 0
        self.end = ""
        self.keyed = False
        self.counted = False
        self.pending = False
        self.due = 0.0
        self.job: Job | None = None
        self.task: Task[Any] | None = None
        self.refusal: Fail | None = None
        self.until = 0.0
        self.payloads: Sequence[Any] | None = None
        self.fate = ""
        self.emitted: Sequence[Payload] = ()
        self.told: Sequence[Outgoing] = ()

    def emit(self, payload: Payload) -> None:
        """Keep what a try tells beside its outcome, to be written with it."""
        self.emitted = (*self.emitted, payload)

    def called_off(self) -> bool:
        """Whether its handler works for nothing."""
        return self.refusal is not None

    @property
    def ending(self) -> bool:
        """Whether its handler runs, or what that has led to is not acknowledged yet."""
        return self.task is not None or self.owed > 0

    @property
    def busy(self) -> bool:
        """Whether a costly call runs for it, or what that has led to is not acknowledged yet."""
        return self.until > 0 or self.owed > 0 or self.payloads is not None

    @property
    def ours(self) -> bool:
        """Whether its end is still to be brought about here."""
        return self.part.alive or bool(self.fate)

    def enter(self) -> None:
        """Take room in the window."""
        self.counted = self.pending = True
        self.part.pending += 1
        window = self.part.feed.window
        window.open += 1
        window.bytes += self.size

    def owes(self, records: int) -> None:
        """Note that it has led to so many records, which need only to be acknowledged."""
        self.owed = records
        self._handled()

    def _handled(self) -> None:
        if self.pending:
            self.pending = False
            self.part.pending -= 1

    def leave(self) -> None:
        """Give the room back, if it took any; doing it twice changes nothing."""
        self._handled()
        if self.counted:
            self.counted = False
            window = self.part.feed.window
            window.open -= 1
            window.bytes -= self.size

    @property
    def size(self) -> int:
        """What the record weighs in the window, in bytes."""
        return len(self.record.value or b"") + len(self.record.key or b"")
