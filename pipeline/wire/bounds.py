"""What makes decoding end soon, whatever the bytes say and whoever wrote the schema (a registry's may be anyone's).

A schema is admitted only if each of its values takes at least one byte and nests at most `MAX_DEPTH` deep. The work of
decoding is then at most the number of bytes times that depth. Without this, eight bytes ask fastavro for 2^26 nulls,
and a few thousand bytes of a schema that contains itself overflow the C stack, which ends the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MAX_DEPTH = 32
"""How deep types may stand in each other."""
MAX_NESTING = 128
"""How deep the JSON of a schema may nest; fastavro walks it in C, without a bound of its own."""

_PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string"})

_COLLECTIONS = (dict, list, tuple)  # made once: `largest` is on the path of every record

_GUARDS = 8
_NO_BRANCH = "no such branch"
_NO_SYMBOL = object()


class SchemaError(ValueError):
    """A schema that is no Avro or that is not admitted. The message says why, to follow the schema's name."""


def check_nesting(schema: object) -> None:
    """Refuse JSON that nests deeper than `MAX_NESTING`. Raises SchemaError."""
    level = [schema]
    for _ in range(MAX_NESTING):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise SchemaError(f"nests deeper than {MAX_NESTING} levels")


def check_types(schema: object) -> None:
    """Refuse a parsed schema in which a value may take no byte, or that nests without end. Raises SchemaError."""
    if _depth(schema, {}) > MAX_DEPTH:
        raise SchemaError(f"has types that stand in each other more than {MAX_DEPTH} deep")


def guard(schema: Any) -> Any:
    """Change a parsed schema, in place, into one that is safe to read with (but no longer to write with).

    Lists of branches and symbols get a tail that no value can be read by: fastavro takes index -1 for the last one, as
    Python does. (An index of -9 or less still names a branch of the union, which is wrong but does no harm; fastavro
    searches these lists for every value, so a longer tail would cost more than it is worth.) Logical types are dropped:
    the payload models say what a number means, and a decimal of a million digits would take minutes to build.
    """
    if isinstance(schema, list):
        return [*map(guard, schema), *[_NO_BRANCH] * _GUARDS]
    if not isinstance(schema, dict):
        return schema
    schema.pop("logicalType", None)
    for inner in schema.keys() & {"items", "values"}:
        schema[inner] = guard(schema[inner])
    for field in schema.get("fields", ()):
        field["type"] = guard(field["type"])
    if "symbols" in schema:
        schema["symbols"] = [*schema["symbols"], *[_NO_SYMBOL] * _GUARDS]
    return schema


def largest(datum: Mapping[str, Any] | list[Any] | tuple[Any, ...]) -> int:
    """Count the items of the largest array or map in a decoded value."""
    items: Iterable[Any] = datum.values() if isinstance(datum, Mapping) else datum
    most = len(datum)
    for item in items:
        if isinstance(item, _COLLECTIONS):
            most = max(most, largest(item))
    return most


def _children(node: object) -> Iterable[object]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _depth(node: object, known: dict[str, int]) -> int:
    """How deep the types of `node` stand; `known` holds the depth of every named type that is complete so far."""
    match node:
        case str():
            depth = _depth_of_name(node, known)
        case [_, *_]:
            depth = 1 + max((_depth(branch, known) for branch in node if branch != "null"), default=0)
        case {"type": "record", "fields": [_, *_] as fields}:
            depth = 1 + max(_depth(field["type"], known) for field in fields)
        case {"type": "array", "items": inner} | {"type": "map", "values": inner}:
            depth = 1 + _depth(inner, known)
        case {"type": "enum", "symbols": [_, *_]}:
            depth = 1
        case {"type": "fixed", "size": int(size)} if size > 0:
            depth = 1
        case {"type": str(inner)} if inner in _PRIMITIVES:
            depth = 1
        case _:
            raise SchemaError("has a type that has no value or takes no byte: an empty record, union, enum or fixed")
    if isinstance(node, dict) and "name" in node:
        known[node["name"]] = depth
    return depth


def _depth_of_name(name: str, known: Mapping[str, int]) -> int:
    if name in _PRIMITIVES:
        return 1
    if name in known:
        return known[name]
    if name == "null":
        raise SchemaError("has a null outside of a union: it takes no byte, so a few bytes could claim millions")
    raise SchemaError(f"has the type {name} inside itself: its values could nest without end")
