"""P6: what exactly-once costs against at-least-once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.core.stage import Delivery
from tests.bench.figures import Figure, at_least, ratios
from tests.bench.lab import Stand, Variant
from tests.bench.throughput import RUNTIME

_MODES: Mapping[str, Delivery] = {"at least once": "at least once", "exactly once": "exactly once"}


async def exactly_once(stand: Stand) -> list[Figure]:
    """P6: a no-op stage of our runtime, exactly once against at least once."""
    orders = {name: replace(stand.order(), delivery=mode) for name, mode in _MODES.items()}
    found = await stand.measure([Variant.module(name, RUNTIME, order) for name, order in orders.items()])
    plain, exact = ([sample.rate for sample in found[name]] for name in _MODES)
    what = "records/s of a no-op stage of ours, exactly once against at least once"
    return [at_least("P6", what, 0.95, ratios(exact, plain))]
