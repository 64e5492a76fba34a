"""Which texts were embedded, and how often: the proof that no text is paid for twice."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

_SHOWN = 200  # characters of a text that are kept


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text that was embedded: its beginning, the SHA-256 of the whole, and how often it was."""

    text: str
    hash: str
    times: int


class Texts:
    """The texts of all answers with status 200; the oldest of more than `capacity` are forgotten."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._times: Counter[str] = Counter()
        self._shown: dict[str, str] = {}
        self._order: deque[str] = deque()
        self._capacity = capacity
        self.total = 0

    def note(self, texts: Iterable[str]) -> None:
        """Count texts that were embedded."""
        for text in texts:
            self.total += 1
            name = _name(text)
            if name not in self._shown:
                self._shown[name] = text[:_SHOWN]
                self._order.append(name)
            self._times[name] += 1
        while len(self._order) > self._capacity:
            oldest = self._order.popleft()
            del self._shown[oldest], self._times[oldest]

    def times(self, text: str) -> int:
        """Say how often a text was embedded."""
        return self._times[_name(text)]

    @property
    def all(self) -> tuple[Embedded, ...]:
        """Every text that was embedded, in the order of its first time."""
        return tuple(Embedded(self._shown[name], name, self._times[name]) for name in self._order)

    @property
    def repeated(self) -> tuple[Embedded, ...]:
        """The texts that were embedded more than once."""
        return tuple(one for one in self.all if one.times > 1)

    def rows(self) -> Iterable[Mapping[str, object]]:
        """Each text as a JSON object."""
        return ({"text": one.text, "hash": one.hash, "times": one.times} for one in self.all)

    def reset(self) -> None:
        """Forget everything."""
        self._times.clear()
        self._shown.clear()
        self._order.clear()
        self.total = 0


def _name(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
