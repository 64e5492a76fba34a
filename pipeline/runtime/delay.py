"""When a record of a retry tier may go on. Pure decisions; the runner holds and moves.

A tier holds each record for exactly its delay, so a tier's partition is in due order by construction and one timer at
its head is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.headers import replay_due_ms
from pipeline.core.record import Record
from pipeline.core.retry import TIERS, Tier, tier_for

CLOCK_MARGIN = 1.0
"""Seconds by which the clocks of two machines may differ without a record being early."""


@dataclass(frozen=True, slots=True)
class Release:
    """Handle it now."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Less than the smallest tier is left: wait in place until `until`, beside the others."""

    until: float


@dataclass(frozen=True, slots=True)
class Move:
    """More than a tier is left: go on to `tier`, still not before `not_before`."""

    tier: Tier
    not_before: float


def exit_time(record: Record, tier: Tier, now: float) -> float:
    """Tell when `record` leaves `tier`. A timestamp that is absent or ahead of our clock counts as now.

    What a replay has brought back leaves at once, if it was due already when it was written.
    """
    written = record.timestamp_ms / 1000
    if not 0 < written <= now:
        return now + tier.delay
    return written if 0 < replay_due_ms(record.headers) <= record.timestamp_ms else written + tier.delay


def onward(not_before: float, now: float, tiers: tuple[Tier, ...] = TIERS) -> Release | Rest | Move:
    """Say what becomes of a record whose tier's delay is over at `now`.

    `not_before` may be by another machine's clock, so a margin is added to it: never early.
    """
    due = not_before + CLOCK_MARGIN
    if not not_before or due <= now:
        return Release()
    tier = tier_for(due - now, tiers)
    return Rest(due) if tier is None else Move(tier, not_before)
