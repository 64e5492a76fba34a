"""What the simulator plays beyond crashes, broken on purpose: each mistake breaks the promise that it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from pipeline.broker import memory_transactions
from pipeline.broker.memory import MemoryBroker
from pipeline.broker.memory_group import Group
from pipeline.core.control import ADMIT, Hold, Refuse
from pipeline.core.event import Event
from pipeline.core.job import Job
from pipeline.core.payloads import Payload
from pipeline.core.record import Commit, Outgoing, Partition, Record
from pipeline.core.retry import DeadLetter, RetryPolicy, Wait
from pipeline.devkit.crash import ends, faults, watch
from pipeline.devkit.crash.faults import Fault, Plan
from pipeline.devkit.crash.run import run
from pipeline.devkit.crash.variants import Variant
from pipeline.rehearsal import Rehearsal
from pipeline.runtime.assignment import Assignment
from pipeline.runtime.control import ControlTopic
from pipeline.runtime.counterparts import Counterparts
from pipeline.runtime.gate import STAGE_PAUSED, Gate
from pipeline.runtime.intake import Intake
from pipeline.runtime.once import Entry, GroupCommit
from pipeline.runtime.settle import Settler
from pipeline.runtime.waiting import WaitingRoom
from pipeline.runtime.work import Item, Part
from pipeline.runtime.workers import Workers

pytestmark = pytest.mark.local

REHEARSAL = Rehearsal()
ENOUGH = 60
EARLY = "nothing is committed before it is answered"

Patch = pytest.MonkeyPatch
Suits = Callable[[Plan], bool]


def way(wanted: str) -> Suits:
    """Plans with a stage that is declared so."""
    return lambda plan: any(variant.way == wanted for variant in plan.variants)


def kind(*wanted: str) -> Suits:
    """Plans with such a fault or command."""
    return lambda plan: any(fault.kind in wanted for fault in plan.faults)


def both(one: Suits, other: Suits) -> Suits:
    """Plans that suit twice."""
    return lambda plan: one(plan) and other(plan)


def any_plan(_: Plan) -> bool:
    """All of them."""
    return True


# ---------------------------------------------------------------- exactly once


def unheard_commits_are_repeated(patch: Patch) -> None:
    """A transaction whose end was not heard is written again, whatever became of it."""
    patch.setattr(memory_transactions, "took_place", lambda offsets, found: False)


def one_partition_tells_of_all(patch: Patch) -> None:
    """A transaction whose end was not heard took place if one of its partitions stands there, by whomever."""

    def told(offsets: Mapping[Partition, Commit], found: Mapping[Partition, Commit]) -> bool:
        return any(found.get(name) == commit for name, commit in offsets.items())

    patch.setattr(memory_transactions, "took_place", told)


def zombies_are_not_fenced(patch: Patch) -> None:
    """A group that takes the offsets of a member that it has put out."""

    def promise(self: Group, transaction: object, names: Sequence[Partition], word: bytes) -> bool:
        self._unstable[transaction] = frozenset(names)
        return True

    patch.setattr(Group, "promise", promise)


def the_uncommitted_is_read(patch: Patch) -> None:
    """Consumers that see what was aborted."""

    def read(self: MemoryBroker, name: Partition, offset: int, limit: int) -> tuple[Sequence[Record], int]:
        records = self.read(name, offset, limit)
        return [record for record in records if record.value is not None], offset + len(records)

    patch.setattr(MemoryBroker, "read_committed", read)


def aborted_work_is_forgotten(patch: Patch) -> None:
    """What an aborted transaction held is not written again."""

    def again(self: GroupCommit, entries: Sequence[Entry], refused: Mapping[int, Exception]) -> None:
        """Forget them."""

    patch.setattr(GroupCommit, "_again", again)


# ---------------------------------------------------------------- at most once, without an order, in place


def early_commits_are_not_awaited(patch: Patch) -> None:
    """A record that is handled before its offset is committed."""
    patch.setattr(Intake, "admit", Intake._start)


def the_unordered_commit_in_order(patch: Patch) -> None:
    """A stage without an order that commits as if all before its newest record were done."""
    right = Assignment.last

    def last(self: Assignment, parts: Sequence[Part]) -> dict[Partition, Commit]:
        commits = right(self, parts)
        if self.plan.stage.order == "none":
            commits |= {part.name: Commit(part.frontier.top) for part in parts if part.frontier.top}
        return commits

    patch.setattr(Assignment, "last", last)


def in_place_is_elsewhere(patch: Patch) -> None:
    """Retries go through the tiers, whatever the policy says."""

    def wait(self: Workers, item: Item, event: Event[Payload], decision: Wait) -> None:
        self._settler.retry(item, event, decision)

    patch.setattr(Workers, "_wait", wait)


def who_waits_gives_up_its_place(patch: Patch) -> None:
    """A key whose next record begins while the one before waits in place."""
    patch.setattr(WaitingRoom, "__contains__", lambda self, item: False)


# ---------------------------------------------------------------- commands


def pauses_are_passed_over(patch: Patch) -> None:
    """A gate that asks and does not obey."""
    right = Gate._ask
    patch.setattr(Gate, "_ask", lambda self, item: (found := right(self, item)) and _but(Hold, found))


def cancellations_are_passed_over(patch: Patch) -> None:
    """A gate that lets cancelled jobs through."""
    right = Gate._ask
    patch.setattr(Gate, "_ask", lambda self, item: (found := right(self, item)) and _but(Refuse, found))


def _but(unwanted: type, found: object) -> object:
    return ADMIT if isinstance(found, unwanted) else found


def commands_are_not_followed(patch: Patch) -> None:
    """A control topic that is read once, at the start."""

    async def follow(self: ControlTopic) -> None:
        await asyncio.get_running_loop().create_future()

    patch.setattr(ControlTopic, "follow", follow)


def the_paused_stay_paused(patch: Patch) -> None:
    """Partitions that are not resumed when the pause of their stage is over."""
    right = Assignment.resume

    def resume(self: Assignment, part: Part, reason: str) -> None:
        if reason != STAGE_PAUSED:
            right(self, part, reason)

    patch.setattr(Assignment, "resume", resume)


def counterparts_are_not_awaited(patch: Patch) -> None:
    """Partitions that are taken from though what they lead to has nowhere to go."""
    patch.setattr(Counterparts, "gate", lambda self, name: None)


# ---------------------------------------------------------------- tries and deadlines


def the_last_try_is_not_made(patch: Patch) -> None:
    """Dead after one try less than the policy says."""
    patch.setattr(RetryPolicy, "tries", property(lambda self: len(self.delays)))


def nobody_hears_of_the_dead(patch: Patch) -> None:
    """Dead letters without failure events."""

    async def dead_letter(
        self: Settler, item: Item, event: Event[Payload], decision: DeadLetter, error: Exception
    ) -> None:
        self._send(item, "dead_letter", [self._copy(item, self.plan.dead_letters, _told(event))])

    patch.setattr(Settler, "dead_letter", dead_letter)


def _told(event: Event[Payload]) -> tuple[tuple[str, bytes], ...]:
    return (("pipeline-original", str(event.origin).encode()), ("pipeline-attempts", b"3"))


def deaths_are_repeated(patch: Patch) -> None:
    """Dead letters that are written twice."""
    right = Settler._send

    def send(self: Settler, item: Item, end: str, records: Sequence[Outgoing]) -> None:
        right(self, item, end, [*records, records[0]] if end == "dead_letter" else records)

    patch.setattr(Settler, "_send", send)


def deadlines_are_passed_over(patch: Patch) -> None:
    """Handlers that begin when their job is too late."""
    patch.setattr(Job, "late", lambda self, now: False)


MISTAKES: Sequence[tuple[Callable[[Patch], None], Suits, set[str], int]] = [
    (unheard_commits_are_repeated, kind("transaction"), {ends.ONCE, "commits only grow"}, 100),
    (one_partition_tells_of_all, both(kind("transaction"), kind("stall")), {EARLY}, 75),
    (zombies_are_not_fenced, both(way("exactly once"), kind("stall")), {ends.ONCE, "commits only grow", EARLY}, 132),
    (the_uncommitted_is_read, kind("transaction"), {"what is not committed is not read"}, 5),
    (aborted_work_is_forgotten, kind("transaction"), {"it comes to rest"}, 0),
    (early_commits_are_not_awaited, way("at most once"), {ends.ONCE}, 38),
    (the_unordered_commit_in_order, way("unordered"), {EARLY}, 0),
    (in_place_is_elsewhere, way("in place"), {ends.IN_PLACE}, 57),
    (pauses_are_passed_over, kind("pause"), {watch.PAUSED}, 14),
    (cancellations_are_passed_over, kind("cancel"), {watch.CANCELLED}, 3),
    (commands_are_not_followed, kind("pause", "cancel"), {watch.PAUSED, watch.CANCELLED}, 0),
    (the_paused_stay_paused, kind("pause"), {"it comes to rest"}, 0),
    (counterparts_are_not_awaited, kind("grow"), {"no stage halts without a reason"}, 87),
    (the_last_try_is_not_made, any_plan, {"all tries are made", "every job has one end"}, 0),
    (nobody_hears_of_the_dead, any_plan, {"every job has one end"}, 0),
    (deaths_are_repeated, any_plan, {"nothing is done twice without a reason", ends.ONCE}, 0),
    (deadlines_are_passed_over, any_plan, {watch.LATE}, 3),
]
"""The mistake, the plans in which it can matter at all, the promises it breaks, and the first seed that finds it."""


@pytest.mark.parametrize("broken, suits, rules, known", MISTAKES)
def test_what_is_broken_is_found(
    broken: Callable[[Patch], None], suits: Suits, rules: set[str], known: int, monkeypatch: Patch
) -> None:
    """By the seed that once found it; where runs have become others since, within a few dozen of all that suit."""
    broken(monkeypatch)
    plans = (faults.draw(seed, REHEARSAL.stages) for seed in (known, *range(ENOUGH * 10)))
    for count, plan in enumerate(filter(suits, plans)):
        ran = run(REHEARSAL, plan)
        if ran.broken is not None:
            assert ran.broken.rule in rules, f"seed {plan.seed}: {ran.broken.rule}: {ran.broken.text}"
            return
        assert count < ENOUGH
    pytest.fail("no seed found it")


def copies_are_committed_when_taken(patch: Patch) -> None:
    """At most once: a copy that is committed before it is due."""
    right = Intake.admit

    def admit(self: Intake, item: Item) -> None:
        if item.part.early:
            item.part.uncommitted.append(item)
        else:
            right(self, item)

    def onward(self: Intake, item: Item, now: float) -> None:
        asyncio.get_running_loop().call_later(10.0, self._enqueue, item)

    patch.setattr(Intake, "admit", admit)
    patch.setattr(Intake, "_onward", onward)


@pytest.mark.parametrize(
    "broken, variant, faults, rules",
    [
        (
            copies_are_committed_when_taken,
            Variant("notify", "at most once"),
            (Fault("webhooks", 0.0, 12.0, flavour="500"), Fault("stop", 9.0, 1.0)),
            {"nothing is lost without a crash"},
        ),
        (
            who_waits_gives_up_its_place,
            Variant("infer", "in place"),
            (Fault("bug", 0.0, 12.0, flavour="infer"),),
            {watch.ONE, "order per key"},
        ),
    ],
)
def test_what_is_broken_is_found_by_a_plan(
    broken: Callable[[Patch], None], variant: Variant, faults: tuple[Fault, ...], rules: set[str], monkeypatch: Patch
) -> None:
    """What few seeds come upon, by a plan that leads there; without the mistake the plan breaks nothing."""
    everything = tuple(stage.name for stage in REHEARSAL.stages)
    plans = [Plan(seed, (everything,), faults, 20.0, (variant,)) for seed in range(4)]
    assert [run(REHEARSAL, plan).broken for plan in plans] == [None] * len(plans)
    broken(monkeypatch)
    ends = [ran.broken.rule for plan in plans if (ran := run(REHEARSAL, plan)).broken]
    assert ends
    assert set(ends) <= rules
