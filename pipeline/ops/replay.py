"""Replays of dead letters, for whoever asks: a plan first, which changes nothing, and a run of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.core import names
from pipeline.core.payloads import Audit
from pipeline.core.ports import Reader, Transactions
from pipeline.core.replay import Rules
from pipeline.ops.letter_states import Book
from pipeline.ops.log_scan import Progress
from pipeline.ops.replay_audit import details_of, earlier
from pipeline.ops.replay_journal import Journal
from pipeline.ops.replay_letters import Known
from pipeline.ops.replay_plan import Plan, Planner, Wanted
from pipeline.ops.replay_run import Report, Run
from pipeline.ops.replay_work import Person, Steps


@dataclass(frozen=True, slots=True)
class Replays:
    """What replays take. Both readers see what is committed only, `second` is for the book of states.

    `transactions` are those of `group` and of the transactional id of the same name. `holder` is unique to this
    process; `tell` hears what a person should know.
    """

    known: Known
    reader: Reader
    second: Reader
    transactions: Transactions
    holder: str
    tell: Callable[[str], None]

    async def plan(self, rules: Rules, wanted: Wanted, progress: Progress) -> Plan:
        """Say what would go where, what is refused and why, and what it will cost. Writes nothing.

        Raises ConfigurationError for a stage that does not exist, and Defer where a schema registry is away.
        """
        return await Planner(self.known, self.reader, self._book(), rules, progress).plan(wanted)

    def run(self, plan: Plan, person: Person, rate: float, stop: asyncio.Event, progress: Progress) -> Run:
        """Make the run of a plan, at so many letters a second; `stop` ends it after the transaction under way."""
        book, known, replay = self._book(), self.known, plan.rules.replay
        journal = Journal(
            prefix=known.prefix,
            book=book,
            codec=known.codec,
            clock=known.clock,
            transactions=self.transactions,
            replay=replay,
            holder=self.holder,
            person=person,
            tell=self.tell,
        )
        return Run(plan, Steps(plan, known, book, person), self.reader, book, journal, rate, stop, progress)

    async def execute(self, plan: Plan, wanted: Wanted, person: Person, rate: float) -> Report:
        """Plan and person given, replay without a terminal: until it is done, and nobody stops it."""
        run = self.run(plan, person, rate, asyncio.Event(), lambda _what, _done, _total: None)
        return await run.run(details_of(plan, wanted))

    async def earlier(self, replay: str) -> Audit:
        """Find how a replay was started. Raises ConfigurationError where there was none of this id."""
        topic = names.topic(self.known.prefix, "audit")
        return await earlier(self.reader, self.known.codec, topic, replay)

    def _book(self) -> Book:
        topic = names.topic(self.known.prefix, "letters")
        return Book(topic, self.known.partitions.get(topic, 0), self.second, self.known.codec)


def group(prefix: str) -> str:
    """Name the group, and the transactional id, of replays: there is one of each, whoever replays."""
    return names.group(prefix, "replay")
