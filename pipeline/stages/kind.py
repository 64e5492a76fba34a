"""Which kind of request a job is, for the stages behind `preprocess`."""

from __future__ import annotations

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.errors import Reject


def kind_of(catalog: Catalog, name: str) -> EventType:
    """Return the event type `name`.

    Raises Reject where there is none: `preprocess` knew it, so this process has another catalog. The dead letter can be
    replayed once the type is back.
    """
    kind = catalog.types.get(name)
    if kind is None:
        raise Reject(f"the catalog (version {catalog.version or 'unknown'}) has no type {name!r}", code="unknown_type")
    return kind
