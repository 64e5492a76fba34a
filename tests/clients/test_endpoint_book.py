"""Tests of pipeline/clients/endpoint_book.py, on the broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pipeline.broker.memory import MemoryBroker
from pipeline.broker.topics import TopicSpec
from pipeline.clients.endpoint_book import READ_SECONDS, BookPorts, ControlBook
from pipeline.core.control import endpoint_key
from pipeline.core.endpoints import HEALTHY, disabling
from pipeline.core.errors import Defer
from pipeline.core.payloads import Audit, Control, Payload
from pipeline.core.ports import Codec, Delivered, Producer
from pipeline.core.record import Outgoing
from pipeline.devkit.clock import wall
from pipeline.resources import resource
from pipeline.runtime.control import ControlTopic, followed
from pipeline.telemetry.metrics import EndpointMetrics
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas
from tests.contracts.endpoint_book_contract import BAD, DAYS, GONE, GOOD, EndpointBookContract, Shelf

CODEC = AvroCodec(load_schemas(resource("schemas")))


class Site:
    """Two workers' books, each with a control topic of its own to read."""

    def __init__(self, codec: Codec = CODEC) -> None:
        """Open nothing yet."""
        self.broker = MemoryBroker(wall)
        self.registry = CollectorRegistry()
        self.book = self._book(self.registry)
        self.other = self._book(CollectorRegistry())
        self.codec = codec

    async def open(self, stack: AsyncExitStack, producer: Producer | None = None) -> Site:
        """Make the topics, and let the books read and write."""
        await self.broker.create_topics([TopicSpec("p.control", 1), TopicSpec("p.audit", 1)])
        for book in (self.book, self.other):
            control = ControlTopic("p.control", self.broker.reader(), CODEC, wall, lambda _: "")
            await stack.enter_async_context(followed(control))
            written = producer or self.broker.producer()
            book.connect(BookPorts(control, written, self.codec, "p", wall))
        return self

    async def enable(self) -> None:
        """Take back what stands in the topic, as the command line does."""
        self.broker.append(Outgoing("p.control", endpoint_key("crm").encode(), None))

    async def audits(self) -> list[Audit]:
        """What the audit topic holds."""
        return [await CODEC.decode("audit", Audit, one.value or b"") for one in self.broker.records("p.audit")]

    def audited(self) -> Sequence[str]:
        """Whose disabling the audit topic tells of: its records' keys."""
        return [(one.key or b"").decode() for one in self.broker.records("p.audit")]

    def _book(self, registry: CollectorRegistry) -> ControlBook:
        return ControlBook({"crm": DAYS}, EndpointMetrics(registry))


@asynccontextmanager
async def site(codec: Codec = CODEC, producer: Producer | None = None) -> AsyncIterator[Site]:
    """Open a site."""
    async with AsyncExitStack() as stack:
        yield await Site(codec).open(stack, producer)


class TestControlBook(EndpointBookContract):
    """The book on the control topic keeps the port's contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Shelf]:
        async with site() as opened:
            yield opened


@pytest.mark.virtual
async def test_a_thousand_failures_write_one_record() -> None:
    """Those that end before the first one's record is read back do not repeat it."""
    async with site() as place:
        for _ in range(1_000):
            await place.book.heard("crm", BAD, wall())
        await asyncio.sleep(60)
        assert len(place.broker.records("p.control")) == 1


@pytest.mark.virtual
async def test_the_audit_tells_who_and_why() -> None:
    """The record is the operational event: what happened to which endpoint, when, by whom and why."""
    async with site() as place:
        now = wall()
        await place.book.heard("crm", GONE, now)
        assert await place.audits() == [
            Audit(
                action="endpoint.disabled",
                subject="crm",
                operator="pipeline",
                reason="it answered 410",
                at_ms=int(now * 1000),
            )
        ]


@pytest.mark.virtual
async def test_each_change_is_a_line_in_the_log_and_disabling_a_gauge() -> None:
    """With stable actions; of attempts that change nothing no line is written."""
    async with site() as place:
        with capture_logs() as lines:
            for heard in (BAD, BAD, GOOD, GOOD, GONE, GONE):
                await place.book.heard("crm", heard, wall())
        assert [(line["action"], line["endpoint"]) for line in lines] == [
            ("endpoint.failing", "crm"),
            ("endpoint.recovered", "crm"),
            ("endpoint.disabled", "crm"),
        ]
        gauge = "pipeline_endpoint_disabled", {"endpoint": "crm"}
        assert place.registry.get_sample_value(*gauge) == 1
        await asyncio.sleep(1)
        await place.enable()
        await asyncio.sleep(60)
        assert place.registry.get_sample_value(*gauge) == 0


@pytest.mark.virtual
async def test_what_another_has_said_meanwhile_wins() -> None:
    """A person who disables an endpoint is not overruled by an attempt that fails."""
    async with site() as place:
        await place.book.heard("crm", BAD, wall())
        entry = disabling("crm", "ann", "moved", wall())
        place.broker.append(Outgoing("p.control", endpoint_key("crm").encode(), await CODEC.encode("control", entry)))
        await asyncio.sleep(60)
        await place.book.heard("crm", BAD, wall())
        assert (place.book.state("crm").by, len(place.broker.records("p.control"))) == ("ann", 2)


@pytest.mark.virtual
async def test_what_was_undone_before_it_was_read_counts_no_more() -> None:
    """After a while the topic alone is believed, though it says what it said before."""
    async with site() as place:
        await place.book.heard("crm", BAD, wall())
        await place.enable()
        assert place.book.state("crm").failing_since is not None
        await asyncio.sleep(READ_SECONDS)
        assert place.book.state("crm") == HEALTHY


class _Away:
    """A codec whose registry is away."""

    async def encode(self, noun: str, payload: Payload) -> bytes:
        raise Defer("the schema registry does not answer", until=wall() + 1)

    decode = CODEC.decode


class _Refusing:
    """A producer whose broker refuses what is not there."""

    def send(self, record: Outgoing, delivered: Delivered) -> None:
        asyncio.get_running_loop().call_soon(delivered, RuntimeError(f"{record.topic} does not exist"))

    async def flush(self, timeout: float) -> int:
        return 0


@pytest.mark.virtual
async def test_what_cannot_be_written_is_said_and_heard_again() -> None:
    """The attempt itself goes on; the next one finds the endpoint as it was."""
    for codec, producer in ((_Away(), None), (CODEC, _Refusing())):
        async with site(codec, producer) as place:
            with capture_logs() as lines:
                await place.book.heard("crm", GONE, wall())
                await asyncio.sleep(1)
            assert {line["action"] for line in lines} >= {"endpoint.unwritten"}
            assert place.book.state("crm") == HEALTHY


@pytest.mark.virtual
async def test_before_it_is_connected_all_is_open() -> None:
    """And what is heard goes nowhere: no stage runs yet."""
    book = ControlBook({"crm": DAYS}, EndpointMetrics(CollectorRegistry()))
    await book.heard("crm", GONE, wall())
    assert book.state("crm") == HEALTHY


def test_an_entry_of_the_topic_is_what_a_book_writes() -> None:
    """The key is the one that the control topic's own rules spell."""
    entry: Control = disabling("a/b", "ann", "", 1.0)
    assert (endpoint_key("a/b"), entry.endpoint) == ("endpoint/a%2Fb", "a/b")
