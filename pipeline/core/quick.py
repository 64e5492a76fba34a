"""Frozen dataclasses that are made as quickly as others.

A frozen dataclass sets each of its fields by a call of `object.__setattr__`. With eleven fields that takes five times
as long as it need, and ten such values are made for each record on its way through a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

T = TypeVar("T")


def quick(made: type[T]) -> type[T]:
    """Give a frozen dataclass with slots an `__init__` that does the same, quickly; to be written above `dataclass`.

    The instance is filled while it is of a subclass that may be written to, and is frozen by becoming one of its own
    class. Raises TypeError, at declaration, for what this does not do: `default_factory`, `init=False`,
    `__post_init__`, a class without slots.
    """
    known = fields(made)  # type: ignore[arg-type]  # raises TypeError for what is no dataclass
    if hasattr(made, "__post_init__") or "__slots__" not in vars(made) or not all(map(_is_plain, known)):
        raise TypeError(f"{made.__name__}: `quick` is for plain dataclasses with slots only")
    # Both names, or Python would ask the frozen class for one of them and take its slow way for each field.
    free = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    draft = type(made.__name__, (made,), {"__slots__": (), **free})
    type.__setattr__(made, "__init__", _init(known, made, draft))
    return made


def _is_plain(field: Field[Any]) -> bool:
    return field.init and not field.kw_only and field.default_factory is MISSING


def _init(known: tuple[Field[Any], ...], made: type[Any], draft: type[Any]) -> Callable[..., None]:
    """Write the function's text; only names of fields, which are identifiers, go into it."""
    defaults = {f"_{field.name}": field.default for field in known if field.default is not MISSING}
    parameters = [f"{field.name}=_{field.name}" if f"_{field.name}" in defaults else field.name for field in known]
    text = [
        f"def __init__(self, {', '.join(parameters)}):",
        " _become(self, '__class__', _draft)",
        *(f" self.{field.name} = {field.name}" for field in known),
        " self.__class__ = _made",
    ]
    scope: dict[str, Any] = {**defaults, "_become": object.__setattr__, "_draft": draft, "_made": made}
    exec("\n".join(text), scope)  # noqa: S102  # as `dataclasses` does; there is no other way to a signature
    function: Callable[..., None] = scope["__init__"]
    function.__annotations__ = made.__init__.__annotations__
    return function
