"""What every EndpointBook promises; run on the fake, and on the one that writes the control topic. In virtual time."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest

from pipeline.core.endpoints import HEALTHY, OURSELVES, EndpointState, Heard
from pipeline.core.ports import EndpointBook
from pipeline.devkit.clock import wall

DAYS = 0.01
SECONDS = DAYS * 86_400.0
BAD, GOOD = Heard(ok=False, reason="it answered 500"), Heard(ok=True)
GONE = Heard(ok=False, reason="it answered 410", gone=True)


class Shelf(Protocol):
    """Books of two workers about the endpoint `crm`, which is disabled after `DAYS`."""

    @property
    def book(self) -> EndpointBook:
        """The book under test."""
        ...

    @property
    def other(self) -> EndpointBook:
        """Another worker's."""
        ...

    async def enable(self) -> None:
        """Enable the endpoint as a person does."""
        ...

    def audited(self) -> Sequence[str]:
        """The endpoints that the audit says were disabled."""
        ...


class EndpointBookContract(ABC):
    """Subclass it, say how to open one, and pytest runs it."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[Shelf]:
        """Open a shelf that knows of no trouble."""

    @pytest.mark.virtual
    async def test_an_endpoint_without_trouble_is_open(self) -> None:
        """Also one that nobody knows; and successes change nothing."""
        async with self.opened() as shelf:
            await shelf.book.heard("crm", GOOD, wall())
            assert shelf.book.state("crm") == shelf.book.state("nobody") == HEALTHY

    @pytest.mark.virtual
    async def test_a_first_failure_counts_at_once_and_for_all(self) -> None:
        """Here from the return on, at other workers a moment later; it tells of the first one."""
        async with self.opened() as shelf:
            began = wall()
            await shelf.book.heard("crm", BAD, began)
            failing = EndpointState(failing_since=began, why="it answered 500")
            assert shelf.book.state("crm") == failing
            await asyncio.sleep(60)
            await shelf.other.heard("crm", BAD, wall())
            assert shelf.book.state("crm") == shelf.other.state("crm") == failing

    @pytest.mark.virtual
    async def test_a_success_of_any_worker_takes_it_back(self) -> None:
        """And a failure after that begins anew."""
        async with self.opened() as shelf:
            await shelf.book.heard("crm", BAD, wall())
            await asyncio.sleep(60)
            await shelf.other.heard("crm", GOOD, wall())
            assert shelf.other.state("crm") == HEALTHY
            await asyncio.sleep(60)
            assert shelf.book.state("crm") == HEALTHY
            again = wall()
            await shelf.book.heard("crm", BAD, again)
            assert shelf.book.state("crm").failing_since == again

    @pytest.mark.virtual
    async def test_long_failure_disables_it(self) -> None:
        """Once, with one audit record, however many attempts fail."""
        async with self.opened() as shelf:
            began = wall()
            while (state := shelf.book.state("crm")).open:
                assert wall() <= began + 2 * SECONDS
                await shelf.book.heard("crm", BAD, wall())
                await asyncio.sleep(SECONDS / 4)
            assert state.disabled_since == pytest.approx(began + SECONDS, abs=60)
            assert (state.by, shelf.other.state("crm"), list(shelf.audited())) == (OURSELVES, state, ["crm"])

    @pytest.mark.virtual
    async def test_gone_is_disabled_at_once(self) -> None:
        """Several attempts that were under way write one audit record."""
        async with self.opened() as shelf:
            for _ in range(3):
                await shelf.book.heard("crm", GONE, wall())
            assert not shelf.book.state("crm").open
            await asyncio.sleep(60)
            assert not shelf.other.state("crm").open
            assert list(shelf.audited()) == ["crm"]

    @pytest.mark.virtual
    async def test_only_a_person_enables(self) -> None:
        """What attempts say that were under way counts for nothing; afterwards all is as it was at the beginning."""
        async with self.opened() as shelf:
            await shelf.book.heard("crm", GONE, wall())
            await asyncio.sleep(60)
            await shelf.book.heard("crm", GOOD, wall())
            await shelf.other.heard("crm", BAD, wall())
            assert not shelf.book.state("crm").open
            await shelf.enable()
            await asyncio.sleep(60)
            assert shelf.book.state("crm") == shelf.other.state("crm") == HEALTHY
