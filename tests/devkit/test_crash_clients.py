"""The clients of a process in the simulator: what they promise while the network is bad."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random

from pipeline.broker.memory import MemoryBroker
from pipeline.broker.topics import TopicSpec
from pipeline.core.payloads import JobPayload
from pipeline.core.record import Outgoing
from pipeline.core.stage import Stage, Topic
from pipeline.devkit.clock import wall
from pipeline.devkit.crash.chart import chart
from pipeline.devkit.crash.clients import Producer
from pipeline.devkit.crash.ledger import Ledger
from pipeline.devkit.crash.network import AcknowledgementLost, Bell, Host, Network
from pipeline.devkit.crash.scheduler import CrashLoop, Process

STAGE = Stage(name="work", sources=(Topic("in", JobPayload),), output=Topic("out", JobPayload), handler=list)

Told = list[tuple[str, Exception | None]]


class Desk:
    """One process with a producer; `told` is what it heard of its records."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.host = Host(Process("p"))
        self.network = Network(broker, Ledger(chart([STAGE], "t")), Random(0))
        self.producer = Producer(self.host, self.network)
        self.told: Told = []

    def send(self, *values: str) -> None:
        for value in values:
            record = Outgoing("t.out", b"k", value.encode(), (), 0)
            self.host.process.soon(self.producer.send, record, self.heard(value))

    def heard(self, value: str) -> Callable[[Exception | None], None]:
        return lambda error: self.told.append((value, error))

    @property
    def written(self) -> list[str]:
        return [(record.value or b"").decode() for record in self.broker.records("t.out")]


def play(main: Callable[[Desk], Coroutine[object, object, None]]) -> None:
    async def begin() -> None:
        broker = MemoryBroker(wall)
        await broker.create_topics([TopicSpec("t.out", 1)])
        await main(Desk(broker))

    with asyncio.Runner(loop_factory=lambda: CrashLoop(Random(1))) as runner:
        runner.run(begin())


def test_records_are_written_and_acknowledged_in_order() -> None:
    """However long each takes on its way."""
    values = [str(number) for number in range(50)]

    async def main(desk: Desk) -> None:
        desk.send(*values)
        await asyncio.sleep(5.0)
        assert desk.written == values
        assert desk.told == [(value, None) for value in values]
        assert await desk.producer.flush(1.0) == 0

    play(main)


def test_what_a_dead_process_had_not_sent_is_lost() -> None:
    """The broker has a beginning of what was sent, never a later record without an earlier one; nobody is told."""
    values = [str(number) for number in range(20)]

    async def main(desk: Desk) -> None:
        desk.send(*values)
        desk.host.process.trap(40, lambda: setattr(desk.host.process, "running", False))
        await asyncio.sleep(60.0)
        assert 0 < len(desk.written) < len(values)
        assert desk.written == values[: len(desk.written)]

    play(main)


def test_records_wait_for_a_broker_that_is_away() -> None:
    """They are no errors, and a flush in the meantime counts them."""

    async def main(desk: Desk) -> None:
        desk.host.link.away_until = 10.0
        desk.send("a", "b")
        await asyncio.sleep(1.0)
        assert await desk.producer.flush(1.0) == 2
        assert (desk.written, desk.told) == ([], [])
        await asyncio.sleep(10.0)
        assert desk.written == ["a", "b"]
        assert desk.told == [("a", None), ("b", None)]

    play(main)


def test_a_lost_acknowledgement_is_of_a_written_record() -> None:
    """The record stands in the log, and its producer is told that this is not known; the next one is heard of again."""

    async def main(desk: Desk) -> None:
        desk.host.link.untold = 1
        desk.send("a", "b")
        await asyncio.sleep(5.0)
        assert desk.written == ["a", "b"]
        assert [(value, type(error)) for value, error in desk.told] == [
            ("a", AcknowledgementLost),
            ("b", type(None)),
        ]

    play(main)


def test_acknowledgements_can_be_late() -> None:
    """Written at once, heard of when the network has recovered."""

    async def main(desk: Desk) -> None:
        desk.host.link.late_until = 30.0
        desk.send("a")
        await asyncio.sleep(5.0)
        assert (desk.written, desk.told) == (["a"], [])
        await asyncio.sleep(30.0)
        assert desk.told == [("a", None)]

    play(main)


def test_an_idle_client_rests_long() -> None:
    """It looks once more soon after it was rung, then hardly ever, and wakes at once when it is rung again."""

    async def main(_: Desk) -> None:
        bell, clock = Bell(), asyncio.get_running_loop().time
        assert not await bell.rung(0.1)
        assert 0.1 <= clock() < 0.2
        asyncio.get_running_loop().call_later(5.0, bell.ring)
        assert await bell.rung(0.1)
        assert 5.0 <= clock() < 5.2

    play(main)
