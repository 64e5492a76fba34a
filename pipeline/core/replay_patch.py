"""What a person may set for a replay: the fields of `core.patch`, checked against the catalog. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.errors import ConfigurationError
from pipeline.core.headers import quoted
from pipeline.core.patch import Patch

NO_PATCH = Patch()


def asked_patch(given: Iterable[str], catalog: Catalog) -> Patch:
    """Read `name=value` pairs. Raises ConfigurationError that names what is not allowed, or not in the catalog."""
    told: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or name not in Patch.model_fields:
            fields = ", ".join(Patch.model_fields)
            raise ConfigurationError(f"--set {quoted(pair, 80)}: what can be set is {fields}, as in --set type=NAME")
        told[name] = value
    try:
        patch = Patch.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise ConfigurationError(f"--set {name}={quoted(told[name], 80)}: {first['msg']}") from None
    _check(patch, catalog)
    return patch


def kind_with(patch: Patch, kind: EventType) -> EventType:
    """Return an event type with the model and the token budget that are set."""
    changes = patch.model_dump(exclude={"type"}, exclude_none=True)
    return kind.model_copy(update=changes) if changes else kind


def _check(patch: Patch, catalog: Catalog) -> None:
    for name, value, known in (("type", patch.type, catalog.types), ("model", patch.model, catalog.models)):
        if value is not None and value not in known:
            raise ConfigurationError(
                f"--set {name}={quoted(value, 80)}: the catalog has no such {name}; it has {', '.join(sorted(known))}"
            )
    kinds = [catalog.types[patch.type]] if patch.type else list(catalog.types.values())
    models = {patch.model} if patch.model else {kind.model for kind in kinds}
    budget = patch.max_output_tokens
    for name in sorted(models):
        window = catalog.models[name].context_tokens
        if budget is not None and budget >= window:
            raise ConfigurationError(
                f"--set max_output_tokens={budget}: the model {name} has {window} tokens for prompt and answer together"
            )
