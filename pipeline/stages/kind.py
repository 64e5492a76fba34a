"""Which kind of request a job is, for the stages behind `preprocess`."""

from __future__ import annotations

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.errors import Reject
from pipeline.core.job import Job
from pipeline.core.patch import read_patch
from pipeline.core.replay_patch import kind_with


def kind_of(catalog: Catalog, name: str) -> EventType:
    """Return the event type `name`.

    Raises Reject where there is none: `preprocess` knew it, so this process has another catalog. The dead letter can be
    replayed once the type is back.
    """
    kind = catalog.types.get(name)
    if kind is None:
        raise Reject(f"the catalog (version {catalog.version or 'unknown'}) has no type {name!r}", code="unknown_type")
    return kind


def kind_for(catalog: Catalog, job: Job) -> EventType:
    """Return the event type of a job, with the model and the token budget that an operator has set for it.

    Raises Reject as `kind_of` does, and for a model or a budget that the catalog does not allow (any more).
    """
    kind = kind_with(read_patch(job.overrides), kind_of(catalog, job.type))
    model, tokens = kind.model, kind.max_output_tokens
    if job.overrides and (model not in catalog.models or tokens >= catalog.models[model].context_tokens):
        raise Reject(f"the catalog allows no answer of {tokens} tokens by a model {model!r}", code="bad_patch")
    return kind
