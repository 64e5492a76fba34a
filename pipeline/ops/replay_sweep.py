"""Reading what stands on some partitions now, to a bounded end, and no further."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from pipeline.core.ports import Reader
from pipeline.core.record import Partition, Record

# Short, as what stands last may be a transaction's marker, of which no fetch tells before it gives up.
FETCH_RECORDS, FETCH_SECONDS = 1_000, 0.05


async def sweep(reader: Reader, spans: Mapping[Partition, range]) -> AsyncGenerator[Sequence[Record], None]:
    """Yield what stands in each partition's span, all at once; in order within a partition only.

    What was deleted meanwhile is passed over. The reader is left with nothing to follow, also when it is not read out.
    """
    left = {name: span for name, span in spans.items() if span}
    for name, span in left.items():
        reader.follow(name, span.start)
    try:
        while left:
            records = await reader.fetch(FETCH_RECORDS, FETCH_SECONDS)
            inside = [one for one in records if one.offset in left.get(Partition(one.topic, one.partition), ())]
            if inside:
                yield inside
            positions = reader.positions()
            done = [name for name, span in left.items() if positions.get(name, -1) >= span.stop]
            reader.leave(done)
            for name in done:
                del left[name]
    finally:
        reader.leave(list(left))
