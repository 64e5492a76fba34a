"""Tests of pipeline/settings_catalog.py, and of the catalog that the program brings along."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.devkit.fakes import FakeModel
from pipeline.resources import resource
from pipeline.settings_catalog import load_catalog
from pipeline.settings_yaml import MAX_BYTES
from pipeline.stages.infer import Infer
from pipeline.stages.postprocess import Postprocess

GOOD = """
default_endpoint: default
models: {small: {input_usd_per_million: 1, output_usd_per_million: 2}}
templates: {answer: {system: Answer., user: "{{ input }}"}}
endpoints: {default: {url_env: WEBHOOK_URL, secret_env: WEBHOOK_SECRET}}
types:
  quick: {model: small, template: answer, max_output_tokens: 100, endpoint: default}
"""


def refused(folder: Path, text: str | bytes) -> str:
    """Return the one sentence about a catalog."""
    path = folder / "catalog.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigurationError) as wrong:
        load_catalog(path)
    told = str(wrong.value)
    assert told.startswith(f"catalog {path}:")
    assert "\n" not in told
    assert len(told) < 600
    return told


def test_the_default_catalog_is_usable() -> None:
    """It has the two types with their limits and lanes, and every stage can be made from it."""
    catalog = load_catalog(resource("deploy", "catalog.yaml"))
    quick, detailed = catalog.types["quick_answer"], catalog.types["detailed_analysis"]
    assert (quick.max_output_tokens, quick.lane) == (500, "interactive")
    assert (detailed.max_output_tokens, detailed.lane) == (2_000, "standard")
    assert catalog.models[quick.model].cost(1_000_000, 1_000_000) == pytest.approx(0.75)
    assert (catalog.endpoints["default"].url_env, catalog.endpoints["default"].secret_env) == (
        "WEBHOOK_URL",
        "WEBHOOK_SECRET",
    )
    Infer(catalog, FakeModel())
    Postprocess(catalog)


def test_a_small_catalog_is_read_and_stamped(tmp_path: Path) -> None:
    """The version is made of the content: the same for the same, another for another."""
    first, second, third = tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"
    first.write_text(GOOD)
    second.write_text("# a comment\n" + GOOD)
    third.write_text(GOOD.replace("100", "101"))
    versions = [load_catalog(path).version for path in (first, second, third)]
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.parametrize(
    "text,problem",
    [
        ("types: [", "line 1, column 9"),
        ("a: b: c", "line 1"),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        (
            GOOD.replace("max_output_tokens: 100", "model: other, max_output_tokens: 100"),
            "the key 'model' is given twice",
        ),
        ("? [a, b]\n: 1", "line 1"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"a: \x00", "not YAML"),
        ("true: 1", "the key True is read as something else than text"),
        ("&a [*a]", "not YAML"),
        ("2026-13-99", "not YAML"),
        ("2026-12-31", "expected a mapping"),
        ("", "expected a mapping"),
        ("just text", "expected a mapping"),
        ("- a\n- b", "expected a mapping"),
        ("{}", "default_endpoint: Field required"),
        (GOOD.replace("max_output_tokens: 100", "max_output_tokens: many"), "types.quick.max_output_tokens"),
        (GOOD.replace("max_output_tokens: 100", "max_output_tokens: 0"), "types.quick.max_output_tokens"),
        (GOOD.replace("template: answer", "template: answer, colour: red"), "types.quick.colour"),
        (GOOD.replace("model: small,", "model: large,"), "types.quick.model: large"),
        (GOOD.replace("default_endpoint: default", "default_endpoint: nowhere"), "default_endpoint: nowhere"),
        (GOOD.replace("url_env: WEBHOOK_URL, ", ""), "either url or url_env"),
        (GOOD + "#" * MAX_BYTES, f"larger than {MAX_BYTES} bytes"),
    ],
)
def test_a_bad_catalog_gives_one_sentence(tmp_path: Path, text: str | bytes, problem: str) -> None:
    """Whatever is wrong, the person hears the file, the place and the problem, and nothing is executed."""
    assert problem in refused(tmp_path, text)


def test_a_file_that_unfolds_into_gigabytes_is_refused(tmp_path: Path) -> None:
    """Aliases of aliases are counted as often as they are used."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "more than" in refused(tmp_path, "\n".join(lines))


def test_nesting_beyond_reason_is_refused(tmp_path: Path) -> None:
    """A file made to exhaust the parser's stack is a mistake like any other."""
    assert "not YAML" in refused(tmp_path, "[" * 500)


def test_a_missing_file_names_its_variable(tmp_path: Path) -> None:
    """The sentence says what to set; a folder is no file either."""
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="PIPELINE_CATALOG"):
            load_catalog(path)


def test_a_merge_key_is_no_repeat(tmp_path: Path) -> None:
    """YAML's own way to share entries still works."""
    merged = GOOD.replace("  quick: {", "  base: &base {").replace("endpoint: default}\n", "endpoint: default}\n")
    path = tmp_path / "catalog.yaml"
    path.write_text(merged + "  quick: {<<: *base, max_output_tokens: 7}\n")
    assert load_catalog(path).types["quick"].max_output_tokens == 7
