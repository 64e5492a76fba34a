"""Structured output: an answer read as JSON and held against its type's schema (JSON Schema 2020-12)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, SchemaRegistry

from pipeline.core.catalog import Catalog
from pipeline.core.errors import ConfigurationError, Fail

MAX_REASON = 300
"""The longest part of a validator's message that is told, in characters: it may quote the whole answer."""

# Models wrap JSON into a fence of Markdown, asked or not.
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL | re.IGNORECASE)


def compile_schemas(catalog: Catalog) -> Mapping[str, Validator]:
    """Compile the schema of every type that has one.

    Raises ConfigurationError that names the type whose schema is malformed or refers to what it does not hold itself.
    """
    schemas = {name: kind.output_schema for name, kind in catalog.types.items()}
    return {name: _compile(name, schema) for name, schema in schemas.items() if schema is not None}


def read_output(text: str, validator: Validator) -> Any:
    """Return the answer as JSON data. Raises Fail with code `invalid_output` and where it broke the schema."""
    data = _parse(text)
    try:
        error = best_match(validator.iter_errors(data))
    except RecursionError:
        _refuse("it is nested too deeply")
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the whole"
        _refuse(f"at {where}: {error.message}")
    return data


def _compile(name: str, schema: dict[str, Any]) -> Validator:
    try:
        Draft202012Validator.check_schema(schema)
        _check_references(schema)
    except SchemaError as error:
        raise ConfigurationError(f"catalog: types.{name}.output_schema is no JSON Schema: {error.message}") from None
    except Unresolvable as error:
        reason = f"refers to {error.ref!r}, which it does not hold itself"
        raise ConfigurationError(f"catalog: types.{name}.output_schema {reason}") from None
    # An empty registry resolves nothing outside of the schema, so no answer ever makes us fetch anything.
    return Draft202012Validator(schema, registry=Registry())


def _check_references(schema: dict[str, Any]) -> None:
    # Otherwise a broken reference would show with the first answer that reaches it.
    held: SchemaRegistry = Registry()
    resolver = held.with_resource("", DRAFT202012.create_resource(schema)).resolver()
    for reference in _references(schema):
        resolver.lookup(reference)


def _references(schema: object) -> list[str]:
    if isinstance(schema, list):
        return [found for part in schema for found in _references(part)]
    if not isinstance(schema, dict):
        return []
    here = [schema[word] for word in ("$ref", "$dynamicRef") if isinstance(schema.get(word), str)]
    return here + [found for part in schema.values() for found in _references(part)]


def _parse(text: str) -> Any:
    fenced = _FENCED.fullmatch(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        _refuse("it is not JSON")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(reason: str) -> NoReturn:
    raise Fail(f"the answer does not fit the type's schema: {reason[:MAX_REASON]}", code="invalid_output")
