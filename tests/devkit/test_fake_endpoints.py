"""The fake book of endpoints keeps the port's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pipeline.devkit.fake_endpoints import FakeEndpointBook
from tests.contracts.endpoint_book_contract import DAYS, EndpointBookContract, Shelf


class _Shelf:
    def __init__(self) -> None:
        self.book = self.other = FakeEndpointBook({"crm": DAYS})

    async def enable(self) -> None:
        self.book.enable("crm")

    def audited(self) -> Sequence[str]:
        return self.book.audited


class TestFakeEndpointBook(EndpointBookContract):
    """One book for all workers: they agree at once."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Shelf]:
        yield _Shelf()
