"""P1: what our runtime adds to the bare loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tests.bench.figures import Figure, at_least, ratios
from tests.bench.lab import Stand, Variant
from tests.bench.meter import Sample
from tests.bench.order import Order

BARE, RUNTIME = "tests.bench.bare", "tests.bench.runtime"

_VARIANTS = {"bare loop": BARE, "our runtime": RUNTIME}


async def bytes_moved(stand: Stand) -> list[Figure]:
    """P1: a no-op stage of our runtime against the bare loop; neither looks into a value."""
    found = await _take_turns(stand, stand.order())
    return [at_least("P1", "records/s of a no-op stage, ours against the bare loop", 0.75, _rates(found))]


async def events_moved(stand: Stand) -> list[Figure]:
    """P1-avro: the same with values decoded, validated and encoded."""
    found = await _take_turns(stand, replace(stand.order(), avro=True))
    what = "records/s of a no-op stage with Avro decode, validation and encode, ours against a plain loop"
    return [at_least("P1-avro", what, 0.9, _rates(found))]


async def _take_turns(stand: Stand, order: Order) -> Mapping[str, Sequence[Sample]]:
    return await stand.measure([Variant.module(name, module, order) for name, module in _VARIANTS.items()])


def _rates(found: Mapping[str, Sequence[Sample]]) -> list[float]:
    bare, ours = ([sample.rate for sample in found[name]] for name in _VARIANTS)
    return ratios(ours, bare)
