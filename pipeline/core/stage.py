"""What a stage is: a handler, its topics, and its policy. The runtime runs any of them and knows none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Generic, Literal, Never, Protocol, TypedDict, TypeVar, Unpack, get_args, get_type_hints

from pipeline.core.event import Event
from pipeline.core.flood import FloodLimits
from pipeline.core.job import LANES, Lane
from pipeline.core.payloads import Failure, Payload, Result
from pipeline.core.ports import OUTSIDE
from pipeline.core.retry import RetryPolicy

P = TypeVar("P", bound=Payload)
A = TypeVar("A", bound=Payload)
B = TypeVar("B", bound=Payload)
Out = TypeVar("Out", bound=Payload)
Other = TypeVar("Other", bound=Payload)
In_contra = TypeVar("In_contra", bound=Payload, contravariant=True)
Out_co = TypeVar("Out_co", bound=Payload, covariant=True)

Delivery = Literal["at least once", "at most once", "exactly once"]
Order = Literal["key", "none"]


@dataclass(frozen=True, slots=True)
class Topic(Generic[P]):
    """A topic by its noun. Invariant in its payload, so a stage wired to the wrong topic is a type error.

    `laned` topics exist once per lane; `open_topic` ones are written by outsiders, so their headers are not trusted.
    """

    noun: str
    payload: type[P]
    laned: bool = False
    open_topic: bool = False

    def __post_init__(self) -> None:
        """Fail at declaration, not at run time."""
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,100}", self.noun):
            raise ValueError(
                f"topic {self.noun!r}: a noun has 1 to 100 letters, digits, '-' or '_'; a dot could make it another's"
            )

    @property
    def lanes(self) -> tuple[Lane | None, ...]:
        """The lanes it exists in; None is the one topic without a lane."""
        return LANES if self.laned else (None,)


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may know about the try it is in. Times are seconds since the epoch.

    `emit` tells of this try beside its outcome: the payload goes to the topic of its type, whatever the try comes to,
    and is acknowledged before the record is settled. A try that is repeated after a crash tells of itself again.
    """

    event_id: str
    attempt: int
    deadline: float | None
    now: Callable[[], float]
    cancelled: Callable[[], bool] = bool
    emit: Callable[[Payload], None] = lambda _: None


class Handler(Protocol[In_contra, Out_co]):
    """The work of a stage.

    Returns payloads, not events: their ids, trace and keys are the runtime's. Ends otherwise only by the exceptions of
    `core.errors`; anything else counts as `Retry`. May be called again for the same event; `ctx.event_id` is then the
    same, and is the idempotency key for calls to the outside.
    """

    async def __call__(self, event: Event[In_contra], ctx: Context, /) -> Sequence[Out_co]:
        """Handle one event."""
        ...


class Policy(TypedDict, total=False):
    """What a line in `topology.py` may say about a stage beyond its topics; see `Stage` for the meanings."""

    concurrency: int
    timeout: float
    retry: RetryPolicy
    flood: FloodLimits
    delivery: Delivery
    order: Order
    costly: bool
    enforce_deadline: bool
    repartition: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage as declared.

    `concurrency` is the number of handlers at once in one process; `timeout` cuts a try, in seconds.
    `also` is a second output topic: the type of what a handler returns picks between the two.
    `delivery` says what a crash may cost: a repetition ("at least once") or a record ("at most once": its offset is
    committed before it is handled). "exactly once" writes what a record leads to and its offset in one transaction: for
    handlers that touch nothing but Kafka, and readers with isolation.level=read_committed.
    `order` is by key, one record of a key at a time, or none at all.
    `flood` is how many dead letters halt the stage.
    `costly` handlers are not called again for a record whose answer is written: the stage follows its own outputs.
    `enforce_deadline` fails a job whose deadline has passed before its next try.
    `repartition` lets the key choose the partition of outputs and copies; otherwise they keep their source's number.
    """

    name: str
    sources: tuple[Topic[Any], ...]
    output: Topic[Any] | None
    handler: Callable[..., Handler[Any, Any]]
    also: Topic[Any] | None = None
    concurrency: int = 64
    timeout: float = 60.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    flood: FloodLimits = field(default_factory=FloodLimits)
    delivery: Delivery = "at least once"
    order: Order = "key"
    costly: bool = False
    enforce_deadline: bool = False
    repartition: bool = False

    def __post_init__(self) -> None:
        """Fail at declaration, not at run time."""
        if not re.fullmatch(r"[a-zA-Z0-9]{1,100}", self.name):
            raise ValueError(
                f"stage {self.name!r}: a name has 1 to 100 letters and digits only, it becomes part of topic names"
            )
        if self.concurrency < 1 or not 0 < self.timeout < math.inf:
            raise ValueError(f"stage {self.name}: concurrency must be at least 1 and timeout above 0, and finite")
        if self.retry.in_place and self.order == "none":
            raise ValueError(f"stage {self.name}: without an order there is none to keep by retries in place")
        if self.costly and (self.output is None or self.repartition or self.delivery != "at least once"):
            # Answers are found by reading along the same partition number, uncommitted transactions included.
            raise ValueError(
                f"stage {self.name}: a costly stage finds its answers on its output topic, under its record's own"
                ' partition number, and delivers "at least once": give it an output, no repartition, no other delivery'
            )
        if len({source.open_topic for source in self.sources}) != 1:
            # Its retry tiers hold copies of all its sources, and a copy does not tell whom its headers are from.
            raise ValueError(f"stage {self.name}: its sources must be all open topics or all our own, and at least one")
        if self.costly and self.also is not None:
            raise ValueError(f"stage {self.name}: a costly stage finds its answers on one output topic, so it has one")
        if self.delivery not in get_args(Delivery):
            raise ValueError(
                f"stage {self.name}: delivery {self.delivery!r} is none of {', '.join(get_args(Delivery))}"
            )
        if self.delivery == "exactly once":
            self._check_inside()

    def _check_inside(self) -> None:
        instead = 'declare it delivery="at least once": the ids of its outputs are derived, so readers can tell repeats'
        if self.output is None:
            raise ValueError(
                f"stage {self.name} cannot be exactly once: it has no output topic, so what it does is done outside of"
                f" Kafka, and a transaction cannot take that back. Instead, {instead}"
            )
        outside = sorted(port.__name__ for port in OUTSIDE if port in _ports(self.handler))
        if outside:
            raise ValueError(
                f"stage {self.name} cannot be exactly once: its handler calls the outside by {' and '.join(outside)},"
                f" and a transaction cannot take back a call. Instead, {instead}"
            )

    @property
    def outputs(self) -> tuple[Topic[Any], ...]:
        """The topics that its handler's payloads go to, by their type."""
        return tuple(one for one in (self.output, self.also) if one is not None)

    @property
    def open_topic(self) -> bool:
        """Whether outsiders write what this stage reads."""
        return any(source.open_topic for source in self.sources)

    @property
    def outcomes(self) -> bool:
        """Whether it handles what jobs have come to: no cancellation of theirs comes in time any more."""
        return any(issubclass(source.payload, Result | Failure) for source in self.sources)


def _ports(handler: Any) -> set[type]:
    """Return the types of a handler's fields, and those that they are made of."""
    if not is_dataclass(handler):
        return set()
    hints = get_type_hints(handler)
    types = [hints[field.name] for field in fields(handler)]
    for one in types:
        types += get_args(one)
    return {one for one in types if isinstance(one, type)}


def stage(
    name: str,
    source: Topic[A],
    output: Topic[Out],
    handler: Callable[..., Handler[A, Out]],
    **policy: Unpack[Policy],
) -> Stage:
    """Declare a stage from one topic to another."""
    return Stage(name=name, sources=(source,), output=output, handler=handler, **policy)


def joined(
    name: str,
    sources: tuple[Topic[A], Topic[B]],
    output: Topic[Out],
    handler: Callable[..., Handler[A | B, Out]],
    **policy: Unpack[Policy],
) -> Stage:
    """Declare a stage that reads two topics."""
    return Stage(name=name, sources=sources, output=output, handler=handler, **policy)


def forked(
    name: str,
    sources: tuple[Topic[A], Topic[B]],
    outputs: tuple[Topic[Out], Topic[Other]],
    handler: Callable[..., Handler[A | B, Out | Other]],
    **policy: Unpack[Policy],
) -> Stage:
    """Declare a stage that reads two topics and writes two."""
    output, also = outputs
    return Stage(name=name, sources=sources, output=output, also=also, handler=handler, **policy)


def sink(name: str, source: Topic[A], handler: Callable[..., Handler[A, Never]], **policy: Unpack[Policy]) -> Stage:
    """Declare a stage whose only effect is outside of Kafka."""
    return Stage(name=name, sources=(source,), output=None, handler=handler, **policy)
