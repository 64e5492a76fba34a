"""Quickly made frozen dataclasses: they are what `dataclass` makes, but for the time."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from pipeline.core.event import Event
from pipeline.core.job import Job
from pipeline.core.quick import quick
from pipeline.core.record import Outgoing, Record
from pipeline.core.trace import Trace


@dataclass(frozen=True, slots=True)
class Slow:
    """As `dataclass` makes it."""

    one: int
    two: str = "2"
    three: tuple[int, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Fast:
    """The same, made quickly."""

    one: int
    two: str = "2"
    three: tuple[int, ...] = ()


def test_the_signature_is_the_same() -> None:
    """Names, order, defaults and annotations; what does not fit them is a TypeError."""
    assert inspect.signature(Slow) == inspect.signature(Fast)
    with pytest.raises(TypeError, match="four"):
        Fast(1, four=4)  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError, match="one"):
        Fast()  # type: ignore[call-arg]  # that is the point


def test_the_value_is_the_same() -> None:
    """Type, fields, text, hash, equality, and copies of all kinds."""
    slow, fast = Slow(1, three=(3,)), Fast(1, three=(3,))
    assert type(fast) is Fast
    assert (repr(slow).replace("Slow", "Fast"), hash(slow)) == (repr(fast), hash(fast))
    assert Fast(1, "2", (3,)) == fast != Fast(2)
    assert [fast] * 3 == [copy.copy(fast), copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))]
    assert Fast(1, "x", (3,)) == replace(fast, two="x")


@pytest.mark.parametrize("kind", [Fast, Event, Job, Record, Outgoing, Trace])
def test_it_is_frozen(kind: type) -> None:
    """No field of a finished value can be set or deleted, and it has no room for another."""
    names = list(inspect.signature(kind).parameters)
    made = kind(*names)
    assert names == [getattr(made, name) for name in names]
    for name in names:
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 2)
        with pytest.raises(FrozenInstanceError):
            delattr(made, name)
    assert not hasattr(made, "__dict__")


@dataclass(frozen=True)
class Open:
    """Without slots."""

    one: int


@dataclass(frozen=True, slots=True)
class Listed:
    """With a factory."""

    one: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Late:
    """With a field that is no argument."""

    one: int = field(init=False, default=1)


@dataclass(frozen=True, slots=True)
class Checked:
    """With work of its own to do."""

    one: int

    def __post_init__(self) -> None:
        """Check something."""


@pytest.mark.parametrize("kind", [Open, Listed, Late, Checked])
def test_what_it_cannot_do_is_refused(kind: type) -> None:
    """At declaration, by name."""
    with pytest.raises(TypeError, match=f"{kind.__name__}: `quick` is for plain dataclasses with slots only"):
        quick(kind)
