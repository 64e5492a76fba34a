"""The payload models of `core` and the newest schemas say the same."""

from __future__ import annotations

import json
import types
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tests.schemas.examples import NOUNS, SCHEMAS

NOTHING = "no default"
PRIMITIVES: dict[object, str] = {str: "string", int: "long", float: "double", bool: "boolean"}


def avro_type(annotation: Any) -> object:
    """The Avro type that a payload's field must have; a Literal of strings is a string, so that it may grow."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PRIMITIVES:
        return PRIMITIVES[annotation]
    if origin is Literal and all(isinstance(value, str) for value in arguments):
        return "string"
    if origin in (Union, types.UnionType) and arguments[1:] == (type(None),):
        return ["null", avro_type(arguments[0])]
    if origin is dict and arguments[0] is str:
        return {"type": "map", "values": avro_type(arguments[1])}
    if origin is tuple and arguments[1:] == (...,):
        return {"type": "array", "items": avro_type(arguments[0])}
    assert issubclass(annotation, BaseModel), f"no Avro type for {annotation}"
    return (annotation.__name__, model_fields(annotation))


def model_fields(model: type[BaseModel]) -> dict[str, tuple[object, object]]:
    """Name, type and default of each field of a payload."""
    return {name: (avro_type(field.annotation), default(field)) for name, field in model.model_fields.items()}


def default(field: FieldInfo) -> object:
    if field.is_required():
        return NOTHING
    value = field.get_default(call_default_factory=True, validated_data={})
    return list(value) if isinstance(value, tuple) else value


def schema_type(schema: Any) -> object:
    """A schema's type in the form of `avro_type`."""
    if isinstance(schema, list):
        return [schema_type(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema["type"] == "record":
        return (schema["name"], schema_fields(schema))
    inner = {"map": "values", "array": "items"}[schema["type"]]
    return {"type": schema["type"], inner: schema_type(schema[inner])}


def schema_fields(schema: Any) -> dict[str, tuple[object, object]]:
    """Name, type and default of each field of a record schema."""
    return {field["name"]: (schema_type(field["type"]), field.get("default", NOTHING)) for field in schema["fields"]}


def newest(noun: str) -> Any:
    return json.loads(SCHEMAS.newest(noun).schema.text)


@pytest.mark.parametrize("noun", NOUNS)
def test_a_payload_equals_its_newest_schema(noun: str) -> None:
    """Names, types, nullability and defaults of all fields are the same, in nested records too."""
    assert model_fields(NOUNS[noun]) == schema_fields(newest(noun))


@pytest.mark.parametrize("noun", NOUNS)
def test_a_schema_is_named_as_its_payload(noun: str) -> None:
    """The record's name is the payload's, in one namespace that no version changes."""
    assert SCHEMAS.newest(noun).schema.name == f"pipeline.events.{NOUNS[noun].__name__}"


@pytest.mark.parametrize("noun", NOUNS)
def test_every_record_and_field_of_a_schema_is_explained(noun: str) -> None:
    """A person who writes a producer needs nothing but the schema: every record and field has a doc."""

    def undocumented(record: Any) -> list[str]:
        inner = [field["type"]["items"] for field in record["fields"] if isinstance(field["type"], dict)
                 and field["type"]["type"] == "array"]  # fmt: skip  # two lines read better than five
        mute = [part["name"] for part in (record, *record["fields"]) if not part.get("doc", "").endswith(".")]
        return mute + [name for nested in inner for name in undocumented(nested)]

    assert undocumented(newest(noun)) == []
