"""Following dead letters as they come, and how many of them in each minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.core.letter_filter import LetterFilter
from pipeline.ops.letters import Found, Letters
from pipeline.ops.log_scan import FETCH_RECORDS, take_snapshot

MINUTE_MS = 60_000


async def watch(letters: Letters, wanted: LetterFilter, turn: float = 1.0) -> AsyncGenerator[Sequence[Found], None]:
    """Yield the letters that are meant of those that are written from now on, for ever.

    Batch by batch, in order within a partition; at least every `turn` seconds, if only an empty one.
    """
    ports, decoder = letters.ports, letters.ports.decoder
    async with ports.opens() as reader:
        bounds = await take_snapshot(reader, ports.shelf, list(ports.topics))
        for name, end in bounds.ends.items():
            reader.follow(name, end)
        yield []
        while True:
            found = []
            for record in await reader.fetch(FETCH_RECORDS, turn):
                one = letters.found(record)
                if not wanted.headers_only().matches(one.head, one.state.state):
                    continue
                if one.head.opaque:
                    one = replace(one, head=await decoder.told(record, one.head))
                if wanted.matches(one.head, one.state.state):
                    found.append(one)
            yield found


@dataclass(slots=True)
class Minutes:
    """How many letters came in each minute, by stage; a minute is told once it is over."""

    begun_ms: int
    _stages: Counter[str] = field(default_factory=Counter)

    def add(self, found: Sequence[Found]) -> None:
        """Count letters of the minute that runs."""
        self._stages.update(one.head.stage for one in found)

    def over(self, now_ms: int) -> Mapping[str, int] | None:
        """Return the counts of a minute that is over at `now_ms`, the most first; None while it runs."""
        if now_ms - self.begun_ms < MINUTE_MS:
            return None
        told = dict(self._stages.most_common())
        self.begun_ms += (now_ms - self.begun_ms) // MINUTE_MS * MINUTE_MS
        self._stages.clear()
        return told
