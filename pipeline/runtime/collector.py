"""The garbage collector while a worker runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 50_000
"""How many more objects are made than freed before the collector looks at the young ones.

A record is some sixty small objects, none of them in a cycle: all are freed without the collector. With Python's own
figure, 700, it looks at all that is in flight every dozen records, in vain, for a third of the CPU time of a stage that
does nothing else (measured). With this one it looks every thousand records, and what cycles there are wait that long.
"""


@contextmanager
def unhurried() -> Iterator[None]:
    """Let the collector look more rarely inside the block; one that does so more rarely still is left alone."""
    before = gc.get_threshold()
    if 0 < before[0] < YOUNG:
        gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
