"""Faults of the broker and of its topics, while requests flow: each is told on `/readyz`, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import aiohttp
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline import wiring
from pipeline.broker.topics import TopicSpec
from pipeline.core import names
from pipeline.core.payloads import Request
from pipeline.core.retry import TIERS
from pipeline.devkit import kafka_storage, samples
from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka import Broker, EmbeddedKafkaConfig, embedded_kafka
from pipeline.devkit.ports import HOST, free_ports
from pipeline.devkit.simulator_faults import Fault, FaultKind
from pipeline.ops.publish import Publisher
from pipeline.runtime.plan import plan
from tests.system.command import pipeline
from tests.system.proxy import Proxy, proxy
from tests.system.site import Site, Stage, site, until

pytestmark = [pytest.mark.kafka, pytest.mark.system]

CHAIN = ("preprocess", "retrieve", "infer", "postprocess", "notify")
AWAY = "waiting for the broker"


# ------------------------------------------------------------------------------------------------ what is seen
async def states(stage: Stage) -> dict[str, str]:
    """What `/readyz` says of each stage of a process, ready or not."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{HOST}:{stage.port}/readyz") as response,
    ):
        return {part["name"]: part["state"] for part in (await response.json())["parts"]}


async def says(stage: Stage, fact: Callable[[str], bool], what: str, seconds: float = 30.0) -> str:
    """Wait until `/readyz` says of some stage what `fact` looks for; returns it."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        found: dict[str, str] = {}
        try:
            found = await states(stage)
        except aiohttp.ClientError:
            assert stage.process.running, stage.log.read_text()
        for words in found.values():
            if fact(words):
                return words
        assert asyncio.get_running_loop().time() < end, f"/readyz never said {what}: {found}"
        await asyncio.sleep(0.1)


async def begin(place: Site, *stages: str) -> Stage:
    """Run stages in a process, without waiting until they are ready."""
    port, log = free_ports(1)[0], place.folder / "begun.log"
    environment = {**place.environment, "PIPELINE_PROBES_PORT": str(port)}
    arguments = (sys.executable, "-m", "pipeline", "run", *stages)
    process = GuardedProcess(Command(arguments, environment, folder=place.folder, output=log))
    await place.stack.enter_async_context(process)
    return Stage(process, port, log)


# ------------------------------------------------------------------------------------------------ requests
@dataclass
class Flow:
    """Requests that are sent one after another until the block ends. `accepted`: the broker has acknowledged them."""

    publisher: Publisher
    accepted: list[str] = field(default_factory=list)
    sent: count[int] = field(default_factory=count)

    async def one(self) -> None:
        """Send one."""
        number = next(self.sent)
        sample = samples.requests()[number % 20]
        request = Request(
            type=sample.type, input=sample.input, id=f"r{number}", tenant=sample.tenant, key=f"k{number % 40}"
        )
        self.accepted.append(await self.publisher.request(request))

    async def many(self, how_many: int) -> None:
        """Send some at once."""
        await asyncio.gather(*(self.one() for _ in range(how_many)))

    async def steadily(self) -> None:
        """Send for ever."""
        while True:
            await self.one()
            await asyncio.sleep(0.1)


@asynccontextmanager
async def flowing(place: Site) -> AsyncIterator[Flow]:
    """Let requests flow during the block; at its end the one under way is waited for."""
    async with place.desk() as desk:
        flow = Flow(desk.publisher)
        task = asyncio.create_task(flow.steadily())
        try:
            yield flow
        finally:
            task.cancel()
            await asyncio.wait([task])
            await desk.producer.flush(30)


def answered(place: Site) -> set[str]:
    """The jobs whose webhooks have come."""
    return {one.body["data"]["job_id"] for one in place.receiver.accepted}


async def goes_on(place: Site, stage: Stage, what: str) -> None:
    """Wait until the process is ready again, and new answers come."""
    await stage.ready(60)
    before = len(answered(place))
    await until(lambda: len(answered(place)) >= before + 5, f"answers after {what}", 40)


async def settled(place: Site) -> None:
    """Wait until no stage has anything left to do."""
    async with place.desk() as desk:
        for name in CHAIN:
            bound = plan(wiring.STAGES[name], place.prefix)
            end = asyncio.get_running_loop().time() + 30
            while left := {
                str(at): lag for at, lag in (await desk.admin.lag(bound.group, bound.topics)).items() if lag
            }:
                assert asyncio.get_running_loop().time() < end, f"{name} still has {left}"
                await asyncio.sleep(0.1)


# ------------------------------------------------------------------------------------------------ the broker
@asynccontextmanager
async def behind_a_proxy(
    config: EmbeddedKafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Broker, Proxy]]:
    """A broker of our own that tells its clients to come through a proxy."""
    port = free_ports(1)[0]
    plain = kafka_storage.server_properties

    def advertised(template: Path, ports: kafka_storage.Ports) -> str:
        return f"{plain(template, ports)}advertised.listeners=PLAINTEXT://{HOST}:{port}\n"

    monkeypatch.setattr(kafka_storage, "server_properties", advertised)
    async with proxy(port) as between, embedded_kafka(config) as broker:
        between.target = int(broker.bootstrap_servers.rpartition(":")[2])
        yield replace(broker, bootstrap_servers=f"{HOST}:{port}"), between


async def cut(between: Proxy) -> None:
    """Cut all connections, again and again."""
    for _ in range(4):
        between.cut()
        await asyncio.sleep(0.3)


async def slow(between: Proxy) -> None:
    """Half a second each way."""
    between.delay = 0.5
    await asyncio.sleep(2)
    between.delay = 0.0


async def hang(broker: Broker, worker: Stage, flow: Flow) -> None:
    """Stop the broker's process and let it go on: no connection ends meanwhile."""
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        await says(worker, lambda words: words == AWAY, AWAY)
    finally:
        os.kill(broker.pid, signal.SIGCONT)


async def die(broker: Broker, worker: Stage, flow: Flow) -> None:
    """Kill the broker while many requests come, more than the client's queue holds; start it again."""
    assert broker.process is not None
    await broker.process.kill()
    burst = asyncio.create_task(flow.many(60))
    await says(worker, lambda words: words == AWAY, AWAY)
    await broker.restart()
    await burst


async def fill(broker: Broker, worker: Stage, flow: Flow) -> None:
    """Let the broker write nothing any more, as on a full disk: it gives up. Then there is room, and it starts."""
    assert broker.process is not None
    assert broker.pid is not None
    if hasattr(resource, "prlimit"):  # Linux; elsewhere it is the same to the worker if the broker just dies
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    else:
        await broker.process.kill()
    burst = asyncio.create_task(flow.many(5))
    await asyncio.wait_for(broker.process.wait(), 30)
    await says(worker, lambda words: words == AWAY, AWAY)
    await broker.restart()
    await burst


Outage = Callable[[Broker, Stage, Flow], Awaitable[None]]


@pytest.mark.heavy
@pytest.mark.within(200)
async def test_outages_of_the_broker(
    own_kafka: EmbeddedKafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut and slow connections, a broker that hangs, dies, or cannot write: one worker lives through all of it.

    It says that it waits for the broker, goes on by itself, and every request that was accepted is answered. The
    producers' queues hold ten records only, so they are full all the while.
    """
    async with (
        behind_a_proxy(own_kafka, monkeypatch) as (broker, between),
        site(broker, tmp_path, KAFKA_QUEUE_BUFFERING_MAX_MESSAGES="10") as place,
    ):
        worker = await place.start(*CHAIN, name="worker")
        pid = worker.process.pid
        outages: tuple[Outage, ...] = (hang, die, fill)
        async with flowing(place) as flow:
            await goes_on(place, worker, "the start")
            await cut(between)
            await goes_on(place, worker, "cut connections")
            await slow(between)
            await goes_on(place, worker, "slow connections")
            for outage in outages:
                await outage(broker, worker, flow)
                await goes_on(place, worker, outage.__name__)
        await until(lambda: answered(place) >= set(flow.accepted), "all answers", 60)
        await settled(place)
        assert worker.process.pid == pid
        async with place.desk() as desk:
            assert await desk.dead() == 0


# ------------------------------------------------------------------------------------------------ topics
async def _written(place: Site, noun: str, number: int) -> None:
    """Wait until a topic has so many records."""
    topic, found = names.topic(place.prefix, noun), 0
    async with place.desk() as desk:
        end = asyncio.get_running_loop().time() + 30
        while (found := sum((await desk.admin.end_offsets([topic])).values())) < number:
            assert asyncio.get_running_loop().time() < end, f"{found} records on {topic}, not {number}"
            await asyncio.sleep(0.1)


@pytest.mark.within(100)
async def test_topics_that_come_late_and_go(kafka: Broker, tmp_path: Path) -> None:
    """Missing topics are named and waited for; a source that is deleted and made again is read from its beginning."""
    async with site(kafka, tmp_path) as place:
        requests = names.topic(place.prefix, "requests")
        async with wiring.opened_admin(place.configured, lambda _: None) as admin:
            await admin.delete_topics([requests])
            worker = await begin(place, "preprocess")
            assert requests in await says(worker, lambda words: "do not exist" in words, "what is missing")
            await wiring.create_topics(place.configured, admin)
            await worker.ready()
            async with place.desk() as desk:
                flow = Flow(desk.publisher)
                await flow.many(30)
                await place.idle("preprocess")
                await admin.delete_topics([requests])
                await wiring.create_topics(place.configured, admin)
                # More than there were: at the old offsets there is something to read, and something before it.
                await flow.many(90)
                await _written(place, "prompts", 120)
                await worker.ready()
                await place.idle("preprocess")


@pytest.mark.within(100)
async def test_growth_in_flow(kafka: Broker, tmp_path: Path) -> None:
    """Topics grow while requests flow: nothing stops, and the new partitions are used."""
    async with site(kafka, tmp_path, KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS="500") as place:
        worker = await place.start(*CHAIN, name="worker")
        async with flowing(place) as flow:
            grown = await asyncio.to_thread(pipeline, "topics", "grow", "6", folder=tmp_path, **place.environment)
            assert grown.returncode == 0, grown.stdout + grown.stderr
            await asyncio.sleep(1)  # clients look for partitions twice a second here
            await flow.many(40)
            await goes_on(place, worker, "growth")
        await until(lambda: answered(place) >= set(flow.accepted), "all answers")
        await place.idle(*CHAIN)
        async with place.desk() as desk:
            ends = await desk.admin.end_offsets([names.topic(place.prefix, "prompts")])
        assert [bool(end) for name, end in sorted(ends.items()) if name.number >= 4] == [True, True]


@pytest.mark.within(100)
async def test_copy_too_large_for_its_tier(kafka: Broker, tmp_path: Path) -> None:
    """A record whose copy its retry topic does not take is a dead letter, and its owner hears of it; others go on."""
    async with site(kafka, tmp_path) as place:
        tier = names.retry_topic(place.prefix, "infer", TIERS[0])
        async with wiring.opened_admin(place.configured, lambda _: None) as admin:
            await admin.delete_topics([tier])
            assert await admin.create_topics([TopicSpec(tier, 4, {"max.message.bytes": "200"})]) == {tier: "created"}
        worker = await place.start(*CHAIN, name="worker")
        place.simulator.faults.add(Fault(kind=FaultKind.SERVER_ERROR))
        async with flowing(place) as flow:
            await goes_on(place, worker, "the start")
        await until(lambda: answered(place) >= set(flow.accepted), "all answers")
        assert [one.body["type"] for one in place.receiver.accepted].count("job.failed") == 1
        await place.idle(*CHAIN)
        async with place.desk() as desk:
            assert await desk.dead() == 1


@pytest.mark.within(100)
async def test_records_that_were_deleted_unread(kafka: Broker, tmp_path: Path) -> None:
    """Where the log no longer has what the group has yet to read the stage halts, and names what is gone."""
    async with site(kafka, tmp_path, PIPELINE_PARTITIONS="1") as place, place.desk() as desk:
        flow, requests = Flow(desk.publisher), names.topic(place.prefix, "requests")
        worker = await place.start("preprocess")
        await flow.many(5)
        await place.idle("preprocess")
        await worker.process.terminate()
        await flow.many(5)
        client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for future in client.delete_records([TopicPartition(requests, 0, 8)]).values():
            await asyncio.wrap_future(future)
        halted = await asyncio.to_thread(pipeline, "run", "preprocess", folder=tmp_path, **place.environment)
        assert halted.returncode != 0
        assert "offsets 5 to 7 are gone" in halted.stdout + halted.stderr
