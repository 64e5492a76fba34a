"""What a replay will cost at the most: one call of the model for each letter whose way leads by it. Pure.

Estimates, rather too much than too little: prompts by `core.limits.estimate_tokens`, answers as long as they may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pipeline.core.catalog import Catalog
from pipeline.core.limits import estimate_tokens
from pipeline.core.patch import Patch
from pipeline.core.payloads import Document, Payload, RetrievedContext
from pipeline.core.replay_patch import kind_with


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls of models, their tokens, and US dollars. `unpriced` calls are of models or types that have no price."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    embedding_tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.embedding_tokens + other.embedding_tokens,
            self.usd + other.usd,
            self.unpriced + other.unpriced,
        )


NOTHING = Cost()


def asking(payload: Payload | None, kind: str, patch: Patch, catalog: Catalog) -> Cost:
    """Estimate the one call that answers a job of the type `kind`; a payload of None counts as unpriced."""
    known = catalog.types.get(patch.type or kind)
    if payload is None or known is None or (known := kind_with(patch, known)).model not in catalog.models:
        return Cost(calls=1, unpriced=1)
    template = catalog.templates[known.template]
    tokens = _tokens(template.system) + _tokens(template.user)
    tokens += estimate_tokens(str(getattr(payload, "input", "")))
    if isinstance(payload, RetrievedContext):
        tokens += sum(estimate_tokens(one.text) for one in payload.passages)
    elif known.retrieval.passages:
        tokens += known.retrieval.tokens
    budget = known.max_output_tokens
    return Cost(1, tokens, budget, 0, catalog.models[known.model].cost(tokens, budget))


def indexing(payload: Payload | None, model: str | None, catalog: Catalog) -> Cost:
    """Estimate what embedding a document takes; nothing where no embedding model is set."""
    if not model or not isinstance(payload, Document):
        return NOTHING
    tokens = estimate_tokens(payload.title) + estimate_tokens(payload.body)
    priced = catalog.models.get(model)
    usd = priced.cost(tokens, 0) if priced else 0.0
    return Cost(embedding_tokens=tokens, usd=usd, unpriced=0 if priced else 1)


# Of these there are few, and they are long.
@lru_cache(maxsize=256)
def _tokens(text: str) -> int:
    return estimate_tokens(text)
