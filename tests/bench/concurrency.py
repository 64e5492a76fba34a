"""P4: handlers that wait, as many at once as the window lets in; and one that never ends."""

from __future__ import annotations

from dataclasses import replace

from tests.bench.figures import Figure, at_least, at_most, ratios
from tests.bench.input import KEYS, key
from tests.bench.lab import Stand, Variant
from tests.bench.order import Order
from tests.bench.throughput import RUNTIME

WINDOW = 500
WAITS_MS = (10, 50, 100)
STUCK_MS = 50

SLOW_WINDOW = 200
SLOW_SECONDS = 1.0
_QUICK_SECONDS = 0.2


async def waits(stand: Stand) -> list[Figure]:
    """P4: the rate against what the waits allow, and what one stuck key costs the others."""
    order = replace(stand.order(), concurrency=WINDOW)
    variants = [_variant(f"{ms} ms", replace(order, wait=ms / 1000)) for ms in WAITS_MS]
    variants.append(_variant("stuck", replace(order, wait=STUCK_MS / 1000, stuck=key(0))))
    found = await stand.measure(variants)
    figures = []
    for ms in WAITS_MS:
        possible = min(KEYS, WINDOW) / ms * 1000
        shares = [sample.rate / possible for sample in found[f"{ms} ms"]]
        what = f"records/s of {WINDOW} handlers that wait {ms} ms, against {possible:,.0f}/s"
        figures.append(at_least(f"P4-{ms}ms", what, 0.9, shares, "share"))
    free, stuck = ([sample.rate for sample in found[name]] for name in (f"{STUCK_MS} ms", "stuck"))
    what = "records/s of the other keys beside one that is stuck, against no stuck key"
    return [*figures, at_least("P4-stuck", what, 0.95, ratios(stuck, free))]


async def slow(stand: Stand) -> list[Figure]:
    """P4-slow: a window that is always full, of slow handlers: its rate, and what was fetched for it."""
    wait = _QUICK_SECONDS if stand.lab.quick else SLOW_SECONDS
    order = replace(stand.order(), concurrency=SLOW_WINDOW, wait=wait, by_chance=True, fetches=True)
    found = (await stand.measure([_variant("slow", replace(order, seconds=order.seconds * 2))]))["slow"]
    possible = SLOW_WINDOW / wait
    rate = f"records/s of {SLOW_WINDOW} handlers that wait {wait:g} s, against {possible:,.0f}/s"
    fetched = "records fetched for each that the client hands over to such handlers"
    return [
        at_least("P4-slow", rate, 0.95, [sample.rate / possible for sample in found], "share"),
        at_most("P4-fetched", fetched, 3, [sample.fetched for sample in found], "x"),
    ]


def _variant(name: str, order: Order) -> Variant:
    return Variant.module(name, RUNTIME, order)
