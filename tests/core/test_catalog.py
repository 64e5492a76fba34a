"""The catalog: a right one is stamped by its content, a wrong one is one sentence that names each wrong entry."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.core.catalog import Catalog, Endpoint, Model, parse_catalog
from pipeline.core.errors import ConfigurationError

Entries = dict[str, Any]


def _entries() -> Entries:
    """A small right catalog, as YAML gives it."""
    return {
        "default_endpoint": "main",
        "models": {"small": {"input_usd_per_million": 0.15, "output_usd_per_million": 0.6, "context_tokens": 8000}},
        "templates": {"qa": {"system": "Answer.", "user": "{{ input }}"}},
        "endpoints": {"main": {"url": "https://example.com/hook", "secret_env": "MAIN_SECRET"}},
        "types": {"quick": {"model": "small", "template": "qa", "max_output_tokens": 500, "endpoint": "main"}},
    }


def _sentence(entries: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_catalog(entries, "catalog.yaml")
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_a_small_catalog_has_sensible_defaults() -> None:
    """What a type does not say: ten minutes, the standard lane, all lanes open, four passages."""
    kind = parse_catalog(_entries(), "catalog.yaml").types["quick"]
    assert (600, "standard", 3, 4) == (kind.deadline_seconds, kind.lane, len(kind.lanes), kind.retrieval.passages)


def test_a_call_is_priced_per_million_tokens() -> None:
    """Prompt and completion have prices of their own, in US dollars."""
    model = Model(input_usd_per_million=2.0, output_usd_per_million=8.0)
    assert (2.0, 8.0, 0.0, 0.005) == (
        model.cost(10**6, 0),
        model.cost(0, 10**6),
        model.cost(0, 0),
        model.cost(500, 500),
    )


@pytest.mark.parametrize(
    "entry,value",
    [
        ("per_document", 0),
        ("neighbours", -1),
        ("neighbours", 6),
        ("score_threshold", float("nan")),
        ("score_threshold", "high"),
        ("filters", ["unit-price"]),
        ("filters", ["a.b"]),
        ("filters", ["source\n"]),
        ("filters", "source"),
    ],
)
def test_retrieval_is_checked(entry: str, value: object) -> None:
    """A share of no passages, more neighbours than help, a threshold that is no number, a name no request may use."""
    entries = _entries()
    entries["types"]["quick"]["retrieval"] = {entry: value}
    assert f"types.quick.retrieval.{entry}" in _sentence(entries)


def test_retrieval_may_be_narrowed() -> None:
    """Threshold, diversity, neighbours and the names of filters are off unless a type says them."""
    entries = _entries()
    plain = parse_catalog(entries, "catalog.yaml").types["quick"].retrieval
    told = {"score_threshold": -0.5, "per_document": 1, "neighbours": 5, "filters": ["source", "_a1"]}
    entries["types"]["quick"]["retrieval"] = told
    full = parse_catalog(entries, "catalog.yaml").types["quick"].retrieval
    assert (plain.score_threshold, plain.per_document, plain.neighbours, plain.filters) == (None, None, 0, None)
    assert (full.score_threshold, full.per_document, full.neighbours, full.filters) == (-0.5, 1, 5, ("source", "_a1"))


# ------------------------------------------------------------------------------------------------ versions
def test_the_version_is_the_content() -> None:
    """The same content has the same version in any order of its entries; any change makes another."""
    two = _entries()
    two["templates"]["other"] = {"system": "", "user": ""}
    reordered = {name: dict(reversed(part.items())) if isinstance(part, dict) else part for name, part in two.items()}
    dearer = copy.deepcopy(two)
    dearer["models"]["small"]["input_usd_per_million"] = 0.16
    first, same, other = (parse_catalog(one, "c").version for one in (two, reordered, dearer))
    assert (12, first) == (len(first), same)
    assert first != other


def test_a_given_version_is_kept() -> None:
    """Who names versions by hand finds that name in the headers."""
    assert "spring" == parse_catalog({**_entries(), "version": "spring"}, "c").version


def test_the_entries_are_not_changed() -> None:
    """Reading a catalog leaves what was read alone, and the catalog cannot be changed afterwards."""
    entries = _entries()
    catalog = parse_catalog(entries, "c")
    assert _entries() == entries
    with pytest.raises(ValidationError, match="frozen"):
        catalog.version = "other"  # type: ignore[misc]  # that it is refused is the point


# ------------------------------------------------------------------------------------------------ wrong ones
@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_what_is_no_mapping_is_no_catalog(data: object) -> None:
    """An empty or scalar file is refused with a sentence on what belongs there."""
    expected = "catalog catalog.yaml: expected a mapping with models, templates, endpoints and types"
    assert expected == _sentence(data)


def test_an_empty_mapping_lacks_everything() -> None:
    """Each missing part is named."""
    wrong = "; ".join(
        f"{name}: Field required" for name in ("default_endpoint", "models", "templates", "endpoints", "types")
    )
    assert f"catalog catalog.yaml: {wrong}" == _sentence({})


def _set(*path: str) -> Callable[[Entries, object], None]:
    def put(entries: Entries, value: object) -> None:
        for name in path[:-1]:
            entries = entries[name]
        entries[path[-1]] = value

    return put


TYPE, MODEL, END = ("types", "quick"), ("models", "small"), ("endpoints", "main")


@pytest.mark.parametrize(
    "path, value, told",
    [
        ((*TYPE, "modle"), "small", "types.quick.modle: Extra inputs are not permitted"),
        ((*TYPE, "max_output_tokens"), 0, "types.quick.max_output_tokens: Input should be greater than 0"),
        ((*TYPE, "lane"), "fast", "types.quick.lane: Input should be 'interactive', 'standard' or 'batch'"),
        ((*TYPE, "lanes"), ["batch"], "types.quick: its lane 'standard' is not among its lanes (batch)"),
        ((*TYPE, "lanes"), [], "types.quick: its lane 'standard' is not among its lanes ()"),
        ((*TYPE, "on_empty"), "maybe", "types.quick.on_empty: Input should be 'fail' or 'retry'"),
        ((*TYPE, "temperature"), 3, "types.quick.temperature: Input should be less than or equal to 2"),
        ((*TYPE, "deadline_seconds"), 0, "types.quick.deadline_seconds: Input should be greater than 0"),
        ((*TYPE, "deadline_seconds"), float("inf"), "types.quick.deadline_seconds: Input should be a finite number"),
        (
            (*TYPE, "deadline_seconds"),
            1e12,
            "types.quick.deadline_seconds: Input should be less than or equal to 31536000",
        ),
        (
            (*TYPE, "retrieval"),
            {"passages": 51},
            "types.quick.retrieval.passages: Input should be less than or equal to 50",
        ),
        ((*TYPE, "output_schema"), [], "types.quick.output_schema: Input should be a valid dictionary"),
        ((*TYPE, "max_output_tokens"), 8000, "types.quick.max_output_tokens: 8000 leave no room for a prompt"),
        ((*TYPE, "model"), "large", "names that the catalog does not define: types.quick.model: large"),
        ((*TYPE, "template"), "x", "names that the catalog does not define: types.quick.template: x"),
        ((*TYPE, "endpoint"), "x", "names that the catalog does not define: types.quick.endpoint: x"),
        ((*TYPE, "endpoints"), ["main", "x"], "names that the catalog does not define: types.quick.endpoint: x"),
        (("default_endpoint",), "x", "names that the catalog does not define: default_endpoint: x"),
        (
            (*MODEL, "input_usd_per_million"),
            -1,
            "models.small.input_usd_per_million: Input should be greater than or equal",
        ),
        ((*MODEL, "output_usd_per_million"), float("nan"), "models.small.output_usd_per_million: Input should be"),
        ((*MODEL, "context_tokens"), "many", "models.small.context_tokens: Input should be a valid integer"),
        ((*END, "url_env"), "MAIN_URL", "endpoints.main: an endpoint has either url or url_env"),
        ((*END, "url"), "", "endpoints.main.url: String should have at least 1 character"),
        ((*END, "secret_env"), None, "endpoints.main.secret_env: Input should be a valid string"),
        (("templates", "qa"), "Answer.", "templates.qa: Input should be"),
        (("tenants",), "acme", "tenants: Input should be a valid dictionary"),
        (("models",), [], "models: Input should be a valid dictionary"),
        (("types", "quick"), None, "types.quick: Input should be"),
    ],
)
def test_a_wrong_entry_is_named(path: tuple[str, ...], value: object, told: str) -> None:
    """One line, without the library's own words around it, that names the file, the entry, and what is wrong."""
    entries = _entries()
    _set(*path)(entries, value)
    sentence = _sentence(entries)
    assert sentence.startswith("catalog catalog.yaml: ")
    assert told in sentence
    assert "\n" not in sentence
    assert "Value error" not in sentence


@pytest.mark.parametrize("schema", [{"a": {1: "x", "b": "y"}}, {"a": float("nan")}, {"a": {"b": object()}}])
def test_an_output_schema_is_plain_json(schema: Entries) -> None:
    """YAML can say more than JSON: numbers as names, dates, NaN. The sentence names the place."""
    entries = _entries()
    entries["types"]["quick"]["output_schema"] = schema
    assert "catalog catalog.yaml: types.quick.output_schema.a" in _sentence(entries)


def test_an_output_schema_that_contains_itself_is_refused() -> None:
    """YAML's anchors can tie a knot; JSON cannot."""
    entries, knot = _entries(), Entries()
    knot["again"] = knot
    entries["types"]["quick"]["output_schema"] = knot
    assert "types.quick.output_schema" in _sentence(entries)


def test_all_wrong_entries_are_named_at_once() -> None:
    """Who mends a catalog mends it once."""
    entries = _entries()
    entries["types"]["quick"] |= {"modle": "x", "on_empty": "maybe"}
    entries["endpoints"]["main"]["secret_env"] = 5
    sentence = _sentence(entries)
    assert ["types.quick.modle", "types.quick.on_empty", "endpoints.main.secret_env"] == [
        name for name in ("types.quick.modle", "types.quick.on_empty", "endpoints.main.secret_env") if name in sentence
    ]


def test_no_value_of_the_file_is_shown() -> None:
    """A secret pasted into the wrong place does not come out in the error."""
    entries = _entries()
    entries["endpoints"]["main"]["secret"] = "whsec_hush"
    entries["models"]["small"]["context_tokens"] = "whsec_hush"
    assert "whsec_hush" not in _sentence(entries)


@pytest.mark.parametrize("part", ["default_endpoint", "models", "templates", "endpoints", "types"])
def test_each_part_is_needed(part: str) -> None:
    """A catalog without one of its parts names that part."""
    entries = copy.deepcopy(_entries())
    del entries[part]
    assert f"{part}: Field required" in _sentence(entries)


def test_an_endpoint_may_name_the_variable_of_its_address() -> None:
    """The address, too, can come from the environment."""
    entries = _entries()
    entries["endpoints"]["main"] = {"url_env": "MAIN_URL", "secret_env": "MAIN_SECRET"}
    endpoint = Endpoint(url_env="MAIN_URL", secret_env="MAIN_SECRET")
    catalog = parse_catalog(entries, "c")
    assert (endpoint, None) == (catalog.endpoints["main"], catalog.tenants)
    assert isinstance(catalog, Catalog)
