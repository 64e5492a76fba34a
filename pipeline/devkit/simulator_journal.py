"""What happened at the simulator: every call, and every start and end of one in the order of time.

All times are seconds of the clock that the simulator was given (monotonic by default): they order and measure, they are
no dates. The functions below turn a journal into proof about the caller's concurrency and order.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from pipeline.devkit.simulator_wire import Usage


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a call when it starts. `key` is the first that is given of: the header `X-Client-Request-Id`,
    `user`, `metadata.key`; `user` is kept apart as well. `question` is its beginning, up to 200 characters."""

    model: str = ""
    key: str = ""
    user: str = ""
    input_hash: str = ""
    stream: bool = False
    question: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call.

    `index` counts from 0 in the order of arrival; `in_flight` is how many calls ran as it started, itself included.
    `status` is the HTTP status sent (499: the caller left first). `outcome` is `ok`, `length`, the kind of the fault,
    the code of the error, or `abandoned`. `usage` is what was produced, even if the answer did not say so or was cut.
    """

    index: int
    started: float
    finished: float
    status: int
    asked: Asked
    usage: Usage
    in_flight: int
    outcome: str

    @property
    def key(self) -> str:
        """What the caller named the call by."""
        return self.asked.key

    def record(self) -> dict[str, Any]:
        """The call as one flat JSON object."""
        fields = asdict(self)
        asked: dict[str, Any] = fields.pop("asked")
        return asked | fields

    @property
    def model(self) -> str:
        """The model that was asked."""
        return self.asked.model

    @property
    def input_hash(self) -> str:
        """SHA-256 of model and messages."""
        return self.asked.input_hash


@dataclass(frozen=True, slots=True)
class CallEvent:
    """A start or an end of a call; `in_flight` is how many run after it."""

    at: float
    what: Literal["start", "end"]
    index: int
    key: str
    in_flight: int


@dataclass(frozen=True, slots=True)
class RunningCall:
    """A call that has started and not finished."""

    index: int
    started: float
    in_flight: int
    asked: Asked = Asked()


class Journal:
    """The calls so far; the oldest of more than `capacity` are forgotten. `now` is passed in by the server."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._calls: deque[Call] = deque(maxlen=capacity)
        self._events: deque[CallEvent] = deque(maxlen=2 * capacity)
        self._running: dict[int, RunningCall] = {}
        self._next = 0
        self._max_in_flight = 0

    @property
    def calls(self) -> tuple[Call, ...]:
        """The finished calls in the order in which they started."""
        return tuple(sorted(self._calls, key=lambda call: call.index))

    @property
    def events(self) -> tuple[CallEvent, ...]:
        """Every start and end, in the order in which they happened."""
        return tuple(self._events)

    @property
    def in_flight(self) -> int:
        """How many calls run now."""
        return len(self._running)

    @property
    def max_in_flight(self) -> int:
        """The most calls that ever ran at once."""
        return self._max_in_flight

    def start(self, now: float, asked: Asked) -> RunningCall:
        """Note the arrival of a call."""
        running = RunningCall(self._next, now, len(self._running) + 1, asked)
        self._next += 1
        self._running[running.index] = running
        self._max_in_flight = max(self._max_in_flight, running.in_flight)
        self._events.append(CallEvent(now, "start", running.index, asked.key, running.in_flight))
        return running

    def finish(self, now: float, running: RunningCall, status: int, outcome: str, usage: Usage) -> None:
        """Note the end of a call."""
        del self._running[running.index]
        self._calls.append(
            Call(running.index, running.started, now, status, running.asked, usage, running.in_flight, outcome)
        )
        self._events.append(CallEvent(now, "end", running.index, running.asked.key, len(self._running)))

    def reset(self) -> None:
        """Forget what is over. Calls that run stay, and the index goes on, so that no two calls can be mixed up."""
        self._calls.clear()
        self._events.clear()
        self._max_in_flight = len(self._running)


def _by_key(call: Call) -> str:
    return call.key


def overlapping_keys(calls: Iterable[Call], key: Callable[[Call], str] = _by_key) -> tuple[str, ...]:
    """The keys of which two calls ran at the same time; calls without a key are left out.

    `key` tells the key of a call where the caller names its calls by something else.
    """
    until: dict[str, float] = {}
    found: dict[str, None] = {}
    for call in sorted(calls, key=lambda call: (call.started, call.index)):
        name = key(call)
        if name and call.started < until.get(name, call.started):
            found[name] = None
        until[name] = max(call.finished, until.get(name, call.finished))
    return tuple(found)


def share_of_time(events: Sequence[CallEvent], in_flight: int) -> float:
    """The share of the time, from the first start to the last, in which at least `in_flight` calls ran (0 to 1).

    The time after the last start is left out, as nothing waits any more while the last calls end.
    """
    starts = [event.at for event in events if event.what == "start"]
    if not starts or starts[-1] <= starts[0]:
        return 0.0
    held = sum(
        later.at - earlier.at
        for earlier, later in pairwise(events)
        if earlier.in_flight >= in_flight and later.at <= starts[-1]
    )
    return held / (starts[-1] - starts[0])
