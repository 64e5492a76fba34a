"""How many examples a property gets whose examples are dear."""

from __future__ import annotations

from hypothesis import settings


def at_most(examples: int) -> int:
    """Return so many, or fewer where the profile in force says so: `make fast` plays ten of each property."""
    return min(examples, settings().max_examples)
