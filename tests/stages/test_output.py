"""Tests of pipeline/stages/output.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ConfigurationError, Fail
from pipeline.stages.output import compile_schemas, read_output
from tests.stages.made import catalog

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "citations": {"type": "array", "items": {"$ref": "#/$defs/number"}},
        "part": {"$dynamicRef": "#node"},
    },
    "required": ["answer"],
    "$defs": {"number": {"type": "integer"}, "node": {"$dynamicAnchor": "node", "type": "string"}},
}


VALIDATOR = compile_schemas(catalog(output_schema=SCHEMA))["quick"]


def read(text: str, schema: dict[str, Any] | None = None) -> Any:
    """Read an answer by a schema."""
    return read_output(text, compile_schemas(catalog(output_schema=schema))["quick"] if schema else VALIDATOR)


def refused(text: str) -> Fail:
    """Return why an answer is refused."""
    with pytest.raises(Fail) as failed:
        read(text)
    assert failed.value.code == "invalid_output"
    return failed.value


def test_only_types_with_a_schema_have_one() -> None:
    """Nothing is made for the others."""
    assert not compile_schemas(catalog())


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": "x", "citations": [1]}',
        ' \n{"answer": "x", "citations": [1]}\n ',
        '```json\n{"answer": "x", "citations": [1]}\n```',
        '```\n{"answer": "x", "citations": [1]}\n```\n',
    ],
)
def test_an_answer_that_fits_is_data(text: str) -> None:
    """Plain or in a fence of Markdown, with white space around it."""
    assert read(text) == {"answer": "x", "citations": [1]}


@pytest.mark.parametrize(
    "text,where",
    [
        ("{}", "at the whole: 'answer' is a required property"),
        ("[]", "at the whole: [] is not of type 'object'"),
        ('{"answer": "x", "citations": [1, "2"]}', "at citations/1: '2' is not of type 'integer'"),
        ('{"answer": "x", "part": 1}', "at part: 1 is not of type 'string'"),
        ("At nine.", "it is not JSON"),
        ("", "it is not JSON"),
        ('{"answer": "x"', "it is not JSON"),
        ('{"answer": NaN}', "it is not JSON"),
        ('{"answer": -Infinity}', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_an_answer_that_does_not_fit_says_where(text: str, where: str) -> None:
    """The reason names the place in the answer, or that it is no JSON at all."""
    assert refused(text).reason == f"the answer does not fit the type's schema: {where}"


def test_the_reason_does_not_repeat_the_answer() -> None:
    """A validator quotes what it refuses; that is cut."""
    assert len(refused(json.dumps({"answer": ["x"] * 1_000})).reason) < 400


def test_nesting_beyond_reason_is_refused() -> None:
    """A schema that follows an answer into its depth gives up before the stack does."""
    tree = {"type": "array", "items": {"$ref": "#"}}
    with pytest.raises(Fail, match="nested too deeply"):
        read("[" * 900 + "]" * 900, tree)


@pytest.mark.parametrize(
    "schema,problem",
    [
        ({"type": "objekt"}, "no JSON Schema"),
        ({"properties": []}, "no JSON Schema"),
        ({"$ref": "https://example.com/schema.json"}, "refers to 'https://example.com/schema.json'"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "refers to '/$defs/none'"),
        ({"anyOf": [{"type": "null"}, {"$ref": "other.json"}]}, "refers to 'other.json'"),
    ],
)
def test_a_broken_schema_stops_the_start(schema: dict[str, Any], problem: str) -> None:
    """A malformed schema, and one that refers to what it does not hold: nothing is ever fetched."""
    with pytest.raises(ConfigurationError) as wrong:
        compile_schemas(catalog(output_schema=schema))
    assert "types.quick.output_schema" in str(wrong.value)
    assert problem in str(wrong.value)


@given(st.text(max_size=40))
def test_every_text_is_data_or_fails(text: str) -> None:
    """Text that is no object with an answer is a Fail, never another error."""
    refused(text)
