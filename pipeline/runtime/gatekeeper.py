"""Who is asked before a record is handled, as those see it who ask."""

from __future__ import annotations

from typing import Protocol

from pipeline.core.event import Event
from pipeline.core.payloads import Payload
from pipeline.runtime.work import Item


class Gatekeeper(Protocol):
    """Asked only while `alert` is True."""

    alert: bool

    def refuses(self, item: Item, /) -> bool:
        """End an item that has just been taken, if its job is cancelled; True where nothing else is to be done."""
        ...

    def stops(self, item: Item, /) -> bool:
        """Hold or end an item whose turn has come; True where it may not be handled."""
        ...

    def check(self, item: Item, event: Event[Payload], /) -> None:
        """Ask for a decoded record, right before its handler. Raises Fail or Defer."""
        ...


class Open:
    """A gate that nobody keeps."""

    alert = False

    def refuses(self, _: Item, /) -> bool:
        """Let all pass."""
        return False

    def stops(self, _: Item, /) -> bool:
        """Let all pass."""
        return False

    def check(self, _: Item, __: Event[Payload], /) -> None:
        """Let all pass."""
