"""P4: handlers that wait, as many at once as the window lets in; and one that never ends."""

from __future__ import annotations

from dataclasses import replace

from tests.bench.figures import Figure, at_least, ratios
from tests.bench.input import KEYS, key
from tests.bench.lab import Stand, Variant
from tests.bench.order import Order
from tests.bench.throughput import RUNTIME

WINDOW = 500
WAITS_MS = (10, 50, 100)
STUCK_MS = 50


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


def _variant(name: str, order: Order) -> Variant:
    return Variant.module(name, RUNTIME, order)
