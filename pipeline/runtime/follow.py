"""Following: a costly stage reads what it may already have written, so that no answer is paid for twice (section 7).

While a partition is assigned, the same partition number of the stage's outputs, of `failures`, of its tiers and of its
dead letters is read along. Nothing is taken of the partition before that has caught up with the ends found at the
assignment; from then on each call looks its record up as it starts. To look is always to look at memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from pipeline.core.answers import EventKey, Word, copy_word, dead_word, failure_word, output_word
from pipeline.core.event import Event
from pipeline.core.offset_map import Progress
from pipeline.core.payloads import Payload
from pipeline.core.ports import Clock, Reader
from pipeline.core.record import Commit, Partition, Record
from pipeline.runtime.answers import Answers, Recent
from pipeline.runtime.ends import Ends
from pipeline.runtime.owners import LOOK_SECONDS, Owners
from pipeline.runtime.plan import Plan
from pipeline.runtime.waiting import WaitingRoom
from pipeline.runtime.work import Item, Part
from pipeline.telemetry import logs

FETCH_RECORDS = 500
FETCH_SECONDS = 1.0
LOOK_BACK = 500
"""How many outputs and failures from before the place that is needed are read too, for the same event at another
offset: what settled the one need not settle the other, so the place may lie behind it. An upstream stage repeats within
its window, or from its last commit on, which is less. That is 20 ms for each partition number that comes.

So a new owner knows an event again whose answer is one of the last so many records of that partition before the place
that its commit names; an old one, one of the last `RECENT` that it has read or written. Past that it is paid for again:
to know it for ever would take an index of all answers."""
MARGIN_SECONDS = 1.0
TICK_SECONDS = 0.5
STALL_SECONDS = 2.0
"""A process that stood still for longer may have lost its partitions: others may have answered since it last read."""
MISSED_SECONDS = 8.0
"""A process that stood still for longer may have been put out of its group. That is below the session timeouts that
groups usually have (10 s, 45 s); with a shorter one a copy too many is found to be answered when it is due."""
LONGEST_CALL = 3_600.0
"""The longest that a call of a former owner may take, in seconds: its time may have been set longer than ours."""
SETTLE_SECONDS = 5.0
"""How long an answer that is there but not acknowledged may take to appear."""


def followed_topics(plan: Plan) -> dict[str, Callable[[Record], Word | None]]:
    """Name the topics that may hold answers to a stage's records, and how each is read."""
    read: dict[str, Callable[[Record], Word | None]] = dict.fromkeys(plan.written, copy_word)
    read |= dict.fromkeys(plan.outputs, output_word)
    read[plan.dead_letters] = dead_word
    read[plan.failures] = lambda record: failure_word(record, plan.stage.name)
    return read


class Follower:
    """Follows the answers to a stage's records. `ready` is told of a partition that may be taken from, `push` of an
    item that was held back and may be looked at again, `failed` of what ended the following."""

    def __init__(self, plan: Plan, reader: Reader, clock: Clock, owners: Owners) -> None:
        """Follow nothing yet."""
        self.ready: Callable[[Part], None] = lambda _: None
        self.push: Callable[[Item], None] = lambda _: None
        self.failed: Callable[[BaseException], None] = lambda _: None
        self.answered_events: Recent[EventKey] = Recent()
        self._unheard: dict[Item, EventKey] = {}
        self._plan = plan
        self._reader = reader
        self._ends = Ends(reader, self._keep)
        self._clock = clock
        self._owners = owners
        self._away: list[Item] = []
        self._topics = followed_topics(plan)
        self._reached: dict[Partition, int] = {}
        self._since: dict[Partition, int] = {}
        self._parts: dict[Partition, Part] = {}
        self._expiring: WaitingRoom[Part] = WaitingRoom(clock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls: dict[EventKey, Item] = {}
        self._closed = False
        self._turned = math.inf
        self._ticker: asyncio.TimerHandle | None = None
        self._log = logs.get(stage=plan.stage.name)

    # -------------------------------------------------------------- life

    def start(self) -> None:
        """Begin to read."""
        self._tick()
        self._run(self._follow())
        self._run(self._look_for_owners())

    async def close(self) -> None:
        """Read no more, and hand nothing over: what still ran was cut."""
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
        self._expiring.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def came(self, part: Part, commit: Commit | None, former: Progress) -> None:
        """Begin to follow the answers to a partition's records. It is not to be taken from until `ready` says so."""
        follows = [Partition(topic, part.name.number) for topic in self._topics]
        part.answers = Answers(commit, former, follows)
        self._parts[part.name] = part
        if part.answers.handed:
            # Longer than any call takes is nobody's word: it must not be waited for for ever.
            longest = self._clock() + max(2 * self._plan.stage.timeout, LONGEST_CALL)
            part.answers.until = math.ceil(min(part.answers.until, longest))
            self._expiring.wait(part, part.answers.until, self._expire)
        self._run(self._begin(part, part.answers))

    def left(self, part: Part) -> None:
        """Forget a partition; its number is read on while another one needs it."""
        if self._parts.get(part.name) is part:
            del self._parts[part.name]
        self._expiring.forget(part)
        if all(name.number != part.name.number for name in self._parts):
            gone = [name for name in self._reached if name.number == part.name.number]
            self._reader.leave(gone)
            for name in gone:
                del self._reached[name], self._since[name]

    def hand_over(self, part: Part) -> None:
        """Name the calls that run, and until when, for the next owner: they will be finished here (section 6.4)."""
        answers = part.answers
        running = [item for item in part.unsettled() if item.busy]
        if answers is None or not running or self._closed:
            return
        now, me = self._clock(), self._owners.me()
        ends = [item.until if item.payloads is None else now + SETTLE_SECONDS for item in running]
        for item in running:
            item.fate = "handed"
            answers.handed.add(item.offset)
            if me is not None:
                answers.owners[item.offset] = me
        self._away = [item for item in self._away if item.busy] + running
        answers.until = max(answers.until, math.ceil(max(now, *ends) + MARGIN_SECONDS))

    # -------------------------------------------------------------- questions

    def answered(self, item: Item, event: Event[Payload] | None = None) -> bool:
        """Whether a record needs no call: what settles it is written, or the same event is answered already."""
        if event is not None and (event.id, event.job.run) in self.answered_events:
            return True
        answers = item.part.answers
        return answers is not None and answers.has(item.offset, item.record.timestamp_ms)

    def parks(self, item: Item) -> bool:
        """Hold a record back while somebody else may be about to answer it; it comes again by `push`.

        That is while its former owner finishes its call, and after this process has stood still.
        """
        self._notice()
        answers = item.part.answers
        if answers is None or not item.part.alive or item.payloads is not None or self.answered(item):
            return False
        if not answers.doubtful and item.offset not in answers.handed:
            return False
        answers.parked[item.offset] = item
        return True

    def needs_no_call(self, item: Item, event: Event[Payload]) -> bool:
        """Whether a record is not to be held nor refused, for its answer is there, or may be made by somebody else.

        Its job would come to a second end. What is not answered after all is asked for again when it comes back.
        """
        self._notice()
        answers = item.part.answers
        if answers is None or not item.part.alive:
            return False
        if item.payloads is not None or self.answered(item, event):
            return True
        return (
            answers.doubtful
            or item.offset in answers.handed
            or self._calls.get((event.id, event.job.run), item) is not item
        )

    def claims(self, item: Item, event: Event[Payload]) -> bool:
        """Whether a call may be made for a record now: not while one runs for another record of the same event."""
        return self._calls.setdefault((event.id, event.job.run), item) is item

    def done(self, item: Item, event: Event[Payload]) -> None:
        """Note that a try is over. An answer of our own counts when it is acknowledged, not only when it is read."""
        key = (event.id, event.job.run)
        if self._calls.get(key) is not item:
            return
        if item.owed:
            self._unheard[item] = key
        else:
            self._end(item, key)

    def acknowledged(self, item: Item) -> None:
        """Note that what an item has led to is acknowledged."""
        key = self._unheard.pop(item, None)
        if key is not None:
            self._end(item, key)

    def _end(self, item: Item, key: EventKey) -> None:
        self._calls.pop(key, None)
        if item.end in {"output", "failure"}:
            self.answered_events.add(key)

    def refused(self, item: Item, event: Event[Payload]) -> None:
        """Note that the broker would not take an answer."""
        self._unheard.pop(item, None)
        self._calls.pop((event.id, event.job.run), None)
        self.answered_events.discard((event.id, event.job.run))

    def progress(self, part: Part, frontier: int) -> Progress:
        """Say what goes with a commit of a part at `frontier`."""
        settled = part.frontier.settled(frontier)
        if part.answers is None:
            return Progress(settled)
        return part.answers.progress(frontier, settled, self._reached, self._clock())

    @property
    def owing(self) -> bool:
        """Whether an answer to a call that was handed over is on its way."""
        return any(item.owed for item in self._away)

    @property
    def behind(self) -> str:
        """Say what is waited for; empty where all has caught up."""
        late = [
            part.answers for part in self._parts.values() if part.answers is not None and not part.answers.caught_up
        ]
        if not late:
            return ""
        if all(answers.goal is None for answers in late):
            return "catching up with its answers: asking the broker where they end"
        goals = [(name, end) for answers in late for name, end in (answers.goal or {}).items()]
        left = sum(max(end - self._reached.get(name, 0), 0) for name, end in dict(sorted(goals)).items())
        return f"catching up with its answers: {left} records left to read"

    # -------------------------------------------------------------- reading

    async def _follow(self) -> None:
        while True:
            for record in await self._reader.fetch(FETCH_RECORDS, FETCH_SECONDS):
                self._hear(record)
            for name, offset in self._reader.positions().items():
                if name in self._reached:
                    self._reached[name] = offset
            for part in list(self._parts.values()):
                self._look(part)
            await asyncio.sleep(0)

    def _hear(self, record: Record) -> None:
        word = self._topics[record.topic](record)
        if word is None:
            return
        if word.event is not None and word.total == 1:
            self.answered_events.add(word.event)
        if word.settles is None:
            return
        topic, number, offset = word.settles
        part = self._parts.get(Partition(topic, number))
        if part is None or part.answers is None:
            return
        place = (Partition(record.topic, record.partition), record.offset)
        if part.answers.hear(offset, (word.part, word.total), place, word.stamp):
            if word.event is not None:
                self.answered_events.add(word.event)
            self._unpark(part.answers, offset)

    def _look(self, part: Part) -> None:
        """Take the step that a part was waiting for, if its goal is reached."""
        answers = part.answers
        if answers is None or answers.goal is None or answers.left(self._reached):
            return
        answers.goal = None
        if not answers.caught_up:
            answers.caught_up = True
            self._log.info(f"{_spelt(part)}: caught up with its answers", action="answers_followed", known=len(answers))
            self.ready(part)
        answers.handed -= answers.given_up
        answers.given_up.clear()
        if answers.asked:
            answers.doubtful = answers.asked = False
        if not answers.doubtful:
            for offset in [offset for offset in answers.parked if offset not in answers.handed]:
                self._unpark(answers, offset)

    def _unpark(self, answers: Answers[Item], offset: int) -> None:
        item = answers.parked.pop(offset, None)
        if item is not None and item.part.alive:
            self.push(item)

    async def _begin(self, part: Part, answers: Answers[Item]) -> None:
        """Find where to begin and how far to catch up, and go there."""
        # In this order: where nothing is owed even now, what will be answered is answered behind these ends.
        ends = await self._ends.of(answers.follows)
        last = await self._ends.of([part.name])
        if self._parts.get(part.name) is not part:
            return
        if last.get(part.name, 0) <= (answers.commit.offset if answers.commit else 0):
            answers.begin = {name: ends.get(name, 0) for name in answers.follows}
        for name, place in answers.begin.items():
            # Past its end the place is in another log than this one: that was deleted and made again.
            offset = place if place <= ends.get(name, 0) else 0
            start = max(offset - (0 if self._topics[name.topic] in {copy_word, dead_word} else LOOK_BACK), 0)
            # Followed for another part already, it goes back only where it has passed what this one needs.
            if name not in self._reached or self._reached[name] > offset or self._since[name] > start:
                self._since[name] = min(self._since.get(name, start), start)
                self._reached[name] = start
                self._reader.follow(name, start)
        answers.goal = ends
        self._log.info(
            f"{_spelt(part)}: catching up with its answers, {answers.left(self._reached)} records to read"
            + ("" if any(answers.begin.values()) else ", from the beginning of the log"),
            action="answers_begun",
        )
        self._look(part)

    def _expire(self, part: Part) -> None:
        """The former owner's time is over: what it has written is in the log now, and needs only to be read."""
        if part.answers is not None:
            self._run(self._give_up(part.answers, set(part.answers.handed)))

    async def _look_for_owners(self) -> None:
        """Wait no longer for calls whose owner is gone."""
        while True:
            self._owners.me()  # asked in time, it is known when partitions leave
            await asyncio.sleep(LOOK_SECONDS)
            waiting = [part.answers for part in self._parts.values() if part.answers is not None]
            gone = await self._owners.gone({owner for answers in waiting for owner in answers.awaited.values()})
            left = [
                (answers, {offset for offset, owner in answers.awaited.items() if owner in gone}) for answers in waiting
            ]
            if count := sum(len(calls) for _, calls in left):
                self._log.info(f"{count} calls were handed over by who is gone now", action="owner_gone")
                await asyncio.gather(*(self._give_up(answers, calls) for answers, calls in left if calls))

    async def _give_up(self, answers: Answers[Item], calls: set[int]) -> None:
        """Wait for no more than what is in the log by now of the answers to `calls`."""
        ends = await self._ends.of(answers.follows)
        answers.goal = _later(answers.goal, ends)
        answers.given_up |= calls

    def _tick(self) -> None:
        self._notice()
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _notice(self) -> None:
        """Doubt what is known if this process has just stood still, until it has read what others wrote meanwhile."""
        now = asyncio.get_running_loop().time()
        stood, self._turned = now - self._turned, now
        if stood <= STALL_SECONDS:
            return
        for item in self._away if stood > MISSED_SECONDS else ():
            # Its next owner may have given it up: an answer is still worth writing, and a copy one try too many.
            item.fate = "lost"
        if not self._parts:
            return
        self._log.warning(
            f"this process stood still for {stood:.1f} s: reading its answers first", action="stood_still"
        )
        for part in self._parts.values():
            if part.answers is not None:
                part.answers.doubtful, part.answers.asked = True, False
                self._run(self._ask(part.answers))

    async def _ask(self, answers: Answers[Item]) -> None:
        ends = await self._ends.of(answers.follows)
        answers.goal = _later(answers.goal, ends)
        answers.asked = True

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._keep(asyncio.get_running_loop().create_task(work))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failed(error)


def _later(one: Mapping[Partition, int] | None, other: Mapping[Partition, int]) -> Mapping[Partition, int]:
    return other if one is None else {name: max(one.get(name, 0), end) for name, end in {**one, **other}.items()}


def _spelt(part: Part) -> str:
    return f"{part.name.topic}/{part.name.number}"
