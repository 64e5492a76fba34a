"""What may be set for a replay."""

from __future__ import annotations

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.core.patch import Patch
from pipeline.core.replay_patch import NO_PATCH, asked_patch, kind_with
from pipeline.resources import resource
from pipeline.settings_catalog import load_catalog

CATALOG = load_catalog(resource("deploy", "catalog.yaml"))


def test_what_the_catalog_has_can_be_set() -> None:
    """A type, a model and a budget, each by its name; nothing given is nothing set."""
    given = ("type=detailed_analysis", "model=gpt-4o-mini", "max_output_tokens=900")
    assert asked_patch(given, CATALOG) == Patch(type="detailed_analysis", model="gpt-4o-mini", max_output_tokens=900)
    assert asked_patch((), CATALOG) == NO_PATCH


@pytest.mark.parametrize(
    "given, sentence",
    [
        ("type", "what can be set is type, model, max_output_tokens"),
        ("endpoint=x", "--set endpoint=x: what can be set is"),
        ("type=poem", "--set type=poem: the catalog has no such type; it has"),
        ("model=gpt-9", "--set model=gpt-9: the catalog has no such model; it has gpt-4o-mini"),
        ("max_output_tokens=many", "--set max_output_tokens=many: Input should be a valid integer"),
        ("max_output_tokens=0", "--set max_output_tokens=0: Input should be greater than or equal to 1"),
        ("max_output_tokens=128000", "the model gpt-4o-mini has 128000 tokens for prompt and answer together"),
        ("type=", "--set type=: String should have at least 1 character"),
    ],
)
def test_anything_else_is_refused_by_name(given: str, sentence: str) -> None:
    """The sentence says what was given and what there is."""
    with pytest.raises(ConfigurationError) as refused:
        asked_patch([given], CATALOG)
    assert sentence in str(refused.value)


def test_what_a_type_is_with_a_patch() -> None:
    """Its own model and budget, unless these are set."""
    kind = CATALOG.types["quick_answer"]
    assert kind_with(Patch(type="gone"), kind) is kind
    patched = kind_with(Patch(model="m", max_output_tokens=9), kind)
    assert (patched.model, patched.max_output_tokens, patched.template) == ("m", 9, kind.template)
