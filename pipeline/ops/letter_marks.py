"""What people do about dead letters: assign, resolve, reopen and purge. First it is planned, then done, and audited.

A plan is of a bounded snapshot, and nothing of it is kept but counts: doing it reads the snapshot again. The audit's
record comes first, so that nothing is done of which nobody could know who did it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pipeline.core.errors import ConfigurationError
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.letter_state import LetterState, Move, after, refusal
from pipeline.core.payloads import Audit, Letter
from pipeline.core.record import Partition
from pipeline.ops.letter_states import entries_of_gone, entry_record
from pipeline.ops.letters import Found, Letters
from pipeline.ops.log_scan import Snapshot, scan
from pipeline.ops.publish import audit_record, write_all
from pipeline.ops.replay_journal import LEASE_SECONDS

MOST_IDS = 100
"""How many letters an audit's record names; of more it tells the number, and each letter's own entry tells the rest."""

_DONE: Mapping[Move, str] = {
    "assign": "letter.assigned",
    "replay": "letter.replayed",
    "resolve": "letter.resolved",
    "reopen": "letter.reopened",
    "quarantine": "letter.quarantined",
    "purge": "letter.purged",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to do, and why. `assignee` is for `assign` alone."""

    move: Move
    operator: str
    reason: str = ""
    assignee: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters: those that a filter means, or those that were `named` one by one. No more than `limit`."""

    filter: LetterFilter = field(default_factory=LetterFilter)
    limit: int | None = None
    named: Sequence[Found] | None = None


@dataclass(slots=True)
class MarkPlan:
    """What a wish comes to: how many letters it is done to, and of how many it is refused, by reason."""

    snapshot: Snapshot
    letters: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)


REMEMBERED_DAYS = 30
"""For so long it is remembered at least what was done about a letter that is gone."""


@dataclass(frozen=True, slots=True)
class Purged:
    """How many letters were deleted from the log, and how many stay until those before them go.

    `forgotten` counts the entries that were taken back, of letters that are long gone.
    """

    deleted: int
    waiting: int
    forgotten: int


async def plan_marks(letters: Letters, choice: Choice, wish: Wish) -> MarkPlan:
    """Count what a wish would be done to. Changes nothing.

    Raises ConfigurationError where letters are to be purged while a replay is under way, which may be at them.
    """
    if wish.move == "purge" and (lease := letters.states.lease) is not None:
        since = letters.ports.clock() - lease.renewed_ms / 1000
        if since < LEASE_SECONDS:
            who = lease.operator or "somebody"
            raise ConfigurationError(f"the replay {lease.replay} of {who} is under way: purge when it has ended")
    plan = MarkPlan(await letters.snapshot())
    async with aclosing(_allowed(letters, choice, wish.move, plan)) as batches:
        async for batch in batches:
            plan.letters += len(batch)
            plan.ids += [one.head.id for one in batch[: MOST_IDS - len(plan.ids)]]
    return plan


async def mark(letters: Letters, choice: Choice, wish: Wish, plan: MarkPlan, scope: str) -> int:
    """Do what was planned; `scope` says in words of what letters. Returns how many letters it was done to.

    All of it is acknowledged then. What was interrupted can be done again: it is done to those that are left.
    """
    ports, now = letters.ports, int(letters.ports.clock() * 1000)
    if not plan.letters:
        return 0
    await write_all(ports.producer, [await audit_record(ports.codec, ports.audit, _audit(wish, plan, scope, now))])
    counts = await ports.shelf.partitions([ports.states])
    again, done = MarkPlan(plan.snapshot), 0
    async with aclosing(_allowed(letters, choice, wish.move, again)) as batches:
        async for batch in batches:
            entries = [(one, entry_of(one, wish, now)) for one in batch]
            records = [
                await entry_record(
                    ports.codec, ports.states, counts.get(ports.states, 1), one.record.partition, one.head.id, entry
                )
                for one, entry in entries
            ]
            done += await write_all(ports.producer, records)
    return done


def entry_of(found: Found, wish: Wish, now_ms: int) -> Letter | None:
    """Make the entry of a letter that makes a move; None takes back what was there, so that it is open."""
    state: LetterState = found.state
    after(state.state, wish.move)
    place = found.record.position
    if wish.move == "reopen":
        return None
    return Letter(
        state=after(state.state, wish.move),  # type: ignore[arg-type]  # but for open, which has no entry
        topic=place.topic,
        partition=place.partition,
        offset=place.offset,
        job=found.head.job,
        operator=wish.operator,
        reason=wish.reason,
        at_ms=now_ms,
        assignee=wish.assignee,
        replay=state.replay,
        replays=state.replays,
    )


async def purge_logs(letters: Letters, before: MarkPlan) -> Purged:
    """Delete from each partition what stands before its first letter that is not purged.

    Kafka deletes from the beginning of a log only. `before` is the plan of the purge that was just done.
    """
    await letters.refresh()
    kept, passed = await _first_kept(letters, before.snapshot)
    below = {name: kept.get(name, end) for name, end in before.snapshot.ends.items()}
    wanted = {name: offset for name, offset in below.items() if offset > before.snapshot.begins[name]}
    await letters.ports.shelf.delete_records(wanted)
    # Of all letters that are purged, not only now: those of before wait as well.
    return Purged(passed, await _waiting(letters, kept, before.snapshot), await _forget(letters))


async def _forget(letters: Letters) -> int:
    ports = letters.ports
    before = int((ports.clock() - REMEMBERED_DAYS * 86_400) * 1000)
    async with ports.opens() as reader:
        gone = await entries_of_gone(reader, ports.shelf, ports.codec, ports.states, before)
    return await write_all(ports.producer, gone)


async def _first_kept(letters: Letters, snapshot: Snapshot) -> tuple[dict[Partition, int], int]:
    """Find the first letter of each partition that is not purged; returns their offsets, and how many precede them."""
    kept: dict[Partition, int] = {}
    passed = 0
    async with letters.ports.opens() as reader, aclosing(scan(reader, snapshot.spans, stop=kept)) as batches:
        async for records in batches:
            for record in records:
                name = Partition(record.topic, record.partition)
                if name in kept:
                    continue
                if letters.found(record).state.state == "purged":
                    passed += 1
                else:
                    kept[name] = record.offset
    return kept, passed


async def _waiting(letters: Letters, kept: Mapping[Partition, int], snapshot: Snapshot) -> int:
    rest = Snapshot(dict(kept), {name: snapshot.ends[name] for name in kept})
    waiting = 0
    async with aclosing(letters.select(LetterFilter(states=("purged",)), rest)) as batches:
        async for batch in batches:
            waiting += len(batch)
    return waiting


async def _allowed(
    letters: Letters, choice: Choice, move: Move, plan: MarkPlan
) -> AsyncGenerator[Sequence[Found], None]:
    """Yield the letters that the move is allowed to, and count in `plan` why it is not to the others."""
    left = choice.limit
    async with aclosing(_chosen(letters, choice, plan.snapshot)) as batches:
        async for batch in batches:
            found = []
            for one in batch:
                if why := refusal(one.state.state, move):
                    plan.refused[why] += 1
                else:
                    found.append(one)
            yield found[:left]
            if left is not None:
                left = max(0, left - len(found))
                if not left:
                    return


async def _chosen(letters: Letters, choice: Choice, snapshot: Snapshot) -> AsyncGenerator[Sequence[Found], None]:
    if choice.named is not None:
        yield choice.named
        return
    async with aclosing(letters.select(choice.filter, snapshot)) as batches:
        async for batch in batches:
            yield batch


def _audit(wish: Wish, plan: MarkPlan, scope: str, now_ms: int) -> Audit:
    details = {"letters": str(plan.letters), "scope": scope, "ids": " ".join(plan.ids)}
    if wish.assignee:
        details["assignee"] = wish.assignee
    subject = plan.ids[0] if plan.letters == 1 else ""
    return Audit(
        action=_DONE[wish.move],
        subject=subject,
        operator=wish.operator,
        reason=wish.reason,
        at_ms=now_ms,
        details=details,
    )
