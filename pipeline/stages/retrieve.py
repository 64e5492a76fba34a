"""retrieve: the passages for a prompt, within what its type allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.catalog import Catalog, Retrieval
from pipeline.core.errors import Defer
from pipeline.core.event import Event
from pipeline.core.index_ports import Freshness, PassageSearch, Search
from pipeline.core.passages import fitting
from pipeline.core.payloads import Passage, Prompt, RetrievedContext
from pipeline.core.stage import Context
from pipeline.stages.kind import kind_of

BEHIND_SECONDS = 3.0
"""How long a prompt waits before it is asked again whether the index has caught up."""


@dataclass(frozen=True)
class Retrieve:
    """Finds passages of the job's tenant only. A type that wants none costs no search, and waits for no source."""

    catalog: Catalog
    index: PassageSearch
    freshness: Freshness

    async def __call__(self, event: Event[Prompt], ctx: Context) -> Sequence[RetrievedContext]:
        """Return the prompt with its passages, best first.

        Raises what the search raises, and Defer while the index is older than the prompt asks for; the job's deadline
        ends that.
        """
        prompt = event.payload
        wanted = kind_of(self.catalog, prompt.type).retrieval
        found: Sequence[Passage] = ()
        if wanted.passages:
            await self._wait(prompt, ctx)
            found = await self.index.search(search_of(prompt, event.job.tenant, wanted))
        context = RetrievedContext(
            endpoint=prompt.endpoint,
            metadata=prompt.metadata,
            input=prompt.input,
            # The index kept to both already; what a prompt may take is not left to it.
            passages=fitting(found, wanted.passages, wanted.tokens),
        )
        return [context]

    async def _wait(self, prompt: Prompt, ctx: Context) -> None:
        for source, version in prompt.as_fresh_as.items():
            if not await self.freshness.caught_up(source, version, ctx.event_id):
                reason = f"the index has not caught up with version {version} of {source[:64]!r}"
                raise Defer(reason, until=ctx.now() + BEHIND_SECONDS, code="index_behind")


def search_of(prompt: Prompt, tenant: str, wanted: Retrieval) -> Search:
    """Say what is looked for: the tenant is the job's, and how much is found is the type's to say."""
    return Search(
        tenant=tenant,
        text=prompt.input,
        limit=wanted.passages,
        filters=prompt.filters,
        threshold=wanted.score_threshold,
        per_document=wanted.per_document,
        neighbours=wanted.neighbours,
        tokens=wanted.tokens,
    )
