"""Key queues: the records of one key are handled in order, one at a time; different keys know nothing of each other."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class KeyQueues(Generic[T]):
    """The key queues of one partition. A null key asks for no order and never waits."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        """Begin empty."""
        # A key is present while one of its records is out; None stands for "nobody waits", which saves a deque a key.
        self._queues: dict[bytes, deque[T] | None] = {}

    def push(self, key: bytes | None, item: T) -> bool:
        """Add an item; True where it may be handled now, False where it waits for its turn."""
        if key is None:
            return True
        queues = self._queues
        if key not in queues:
            queues[key] = None
            return True
        queue = queues[key]
        if queue is None:
            queues[key] = deque((item,))
        else:
            queue.append(item)
        return False

    def release(self, key: bytes | None) -> T | None:
        """Say that the key's current item is done; returns the next one, which may be handled now."""
        if key is None:
            return None
        queue = self._queues[key]
        if queue is None:
            del self._queues[key]
            return None
        item = queue.popleft()
        if not queue:
            self._queues[key] = None
        return item

    def withdraw(self, key: bytes | None, item: T) -> bool:
        """Take out an item that waits behind another of its key; False where it does not."""
        queue = None if key is None else self._queues.get(key)
        if key is None or queue is None or item not in queue:
            return False
        queue.remove(item)
        if not queue:
            self._queues[key] = None
        return True

    def depth(self, key: bytes | None) -> int:
        """Count the items of a key that wait behind its current one."""
        if key is None:
            return 0
        return len(self._queues.get(key) or ())
