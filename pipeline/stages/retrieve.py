"""retrieve: the passages for a prompt, within what its type allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.core.catalog import Catalog, Retrieval
from pipeline.core.event import Event
from pipeline.core.limits import estimate_tokens
from pipeline.core.payloads import Passage, Prompt, RetrievedContext
from pipeline.core.ports import PassageSearch, Search
from pipeline.core.stage import Context
from pipeline.stages.kind import kind_of


@dataclass(frozen=True)
class Retrieve:
    """Finds passages of the job's tenant only. A type that wants none costs no search."""

    catalog: Catalog
    index: PassageSearch

    async def __call__(self, event: Event[Prompt], _ctx: Context) -> Sequence[RetrievedContext]:
        """Return the prompt with its passages, best first. Raises what the search raises."""
        prompt = event.payload
        wanted = kind_of(self.catalog, prompt.type).retrieval
        found: Sequence[Passage] = ()
        if wanted.passages:
            found = await self.index.search(Search(event.job.tenant, prompt.input, wanted.passages, prompt.filters))
        passages = within_budget(found, wanted)
        context = RetrievedContext(
            endpoint=prompt.endpoint, metadata=prompt.metadata, input=prompt.input, passages=passages
        )
        return [context]


def within_budget(found: Iterable[Passage], wanted: Retrieval) -> tuple[Passage, ...]:
    """Keep the best passages that fit into the count and token budget.

    One that does not fit is left out whole, since half a passage misleads; a smaller one after it may still fit.
    """
    kept: list[Passage] = []
    room = wanted.tokens
    for passage in found:
        tokens = estimate_tokens(passage.text)
        if len(kept) < wanted.passages and tokens <= room:
            kept.append(passage)
            room -= tokens
    return tuple(kept)
