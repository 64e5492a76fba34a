"""Counting dead letters: by each thing a person asks first, in bounded memory, however many there are."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.core.letter import Kind, LetterHead, Owner
from pipeline.core.letter_state import LetterState

DIMENSIONS = ("stage", "reason", "fingerprint", "type", "tenant", "version", "age", "state", "family")
"""What letters are counted by. `version` is that of the value's schema."""

AGES = ("under an hour", "under a day", "under a week", "under 30 days", "older")
_AGE_MS = (3_600_000, 86_400_000, 604_800_000, 2_592_000_000)

IN_VALUE = "(in the value)"
"""The type and tenant of a letter from outsiders that was not decoded, or cannot be."""
OTHERS = "(others)"
NONE = "(none)"

MOST_NAMES = 10_000
"""How many names of one dimension are told apart; further ones are counted together."""
_MOST_GROUPS = 50_000

_Group = tuple[Kind, Owner, str, str, str, bool, int]


@dataclass(slots=True)
class Counts:
    """How many letters there are. Filled by `add`, and read when all are in."""

    now_ms: int
    total: int = 0
    oldest_ms: int = 0
    newest_ms: int = 0
    examples: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    _names: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in DIMENSIONS})
    _groups: Counter[_Group] = field(default_factory=Counter)

    def add(self, head: LetterHead, state: LetterState, version: str) -> None:
        """Count a letter. `version` is that of its value's schema."""
        failed = head.failed_at_ms
        age = bisect_right(_AGE_MS, self.now_ms - failed)
        group = (head.kind, head.owner, version, state.state, head.family, head.opaque, age)
        if group not in self._groups:
            self._begin(head)
        self._groups[group] += 1
        self.total += 1
        self.newest_ms = max(self.newest_ms, failed)
        if failed < self.oldest_ms or not self.oldest_ms:
            self.oldest_ms = failed

    def by(self, dimension: str) -> Mapping[str, int]:
        """Return how many letters there are by name, the most first; ages from young to old."""
        self._settle()
        names = self._names[dimension]
        if dimension == "age":
            return {name: names[name] for name in AGES if names[name]}
        return dict(sorted(names.items(), key=lambda one: (-one[1], one[0])))

    def join(self, other: Counts) -> None:
        """Add what another has counted."""
        self._settle()
        other._settle()
        for dimension, names in other._names.items():
            for name, number in names.items():
                self._name(dimension, name, number)
        for grave, example in other.examples.items():
            if len(self.examples) < MOST_NAMES:
                self.examples.setdefault(grave, example)
        self.total += other.total
        self.newest_ms = max(self.newest_ms, other.newest_ms)
        self.oldest_ms = min(self.oldest_ms or other.oldest_ms, other.oldest_ms or self.oldest_ms)

    def _name(self, dimension: str, name: str, number: int) -> None:
        names = self._names[dimension]
        names[name if name in names or len(names) < MOST_NAMES else OTHERS] += number

    def _begin(self, head: LetterHead) -> None:
        """Keep of each fingerprint what it is about, from its first letter."""
        if len(self._groups) >= _MOST_GROUPS:
            self._settle()
        if len(self.examples) < MOST_NAMES:
            self.examples.setdefault(head.fingerprint, (head.stage, head.code, head.reason))

    def _settle(self) -> None:
        for (kind, owner, version, state, family, opaque, age), number in self._groups.items():
            unknown = IN_VALUE if opaque else NONE
            told = {
                "stage": kind.stage or NONE,
                "reason": kind.code,
                "fingerprint": kind.fingerprint,
                "type": owner.type or unknown,
                "tenant": owner.tenant or unknown,
                "version": version,
                "age": AGES[age],
                "state": state,
                "family": family,
            }
            for dimension, name in told.items():
                self._name(dimension, name, number)
        self._groups.clear()
