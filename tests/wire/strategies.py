"""Payloads of every noun, as hypothesis draws them."""

from __future__ import annotations

import types
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.core.payloads import Payload
from tests.schemas.examples import NOUNS

LONGS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=40)
PRIMITIVES: dict[object, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: LONGS,
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    type(None): st.none(),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Draw values of a payload's field."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PRIMITIVES:
        return PRIMITIVES[annotation]
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, reversed(arguments)))
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=4)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=4).map(tuple)
    return models(annotation)


@cache
def models(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Draw payloads of one class."""
    return st.builds(model, **{name: values(field.annotation) for name, field in model.model_fields.items()})


def payloads() -> st.SearchStrategy[tuple[str, Payload]]:
    """Draw a noun and a payload of it."""
    return st.sampled_from(sorted(NOUNS)).flatmap(lambda noun: st.tuples(st.just(noun), models(NOUNS[noun])))
