"""confluent-kafka's own asyncio clients, experimental in its documentation: batches in, futures out, commits by time.

https://docs.confluent.io/platform/current/clients/confluent-kafka-python/html/index.html, "AsyncIO"
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.aio import AIOConsumer, AIOProducer

from tests.bench.peers.order import BATCH, COMMIT_SECONDS, PeerOrder, received


async def run(order: PeerOrder) -> None:
    """Move records until enough is measured; an offset is committed when all up to it is acknowledged."""
    consumer = AIOConsumer(
        {
            "bootstrap.servers": order.servers,
            "group.id": order.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "queued.min.messages": 50_000,
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = AIOProducer(
        {"bootstrap.servers": order.servers, "enable.idempotence": True, "linger.ms": 5},
        batch_size=BATCH,
        buffer_timeout=0.05,
    )
    await consumer.subscribe([order.input])
    meter, done, sent, commit_at = order.meter(), 0, list[asyncio.Future[Any]](), 0.0
    offsets: dict[int, int] = {}

    def acknowledged(future: asyncio.Future[Any]) -> None:
        nonlocal done
        done += not future.cancelled() and future.exception() is None

    while not meter.note(done):
        for message in await consumer.consume(BATCH, 0.05):
            future = await producer.produce(order.output, message.value(), message.key())
            future.add_done_callback(acknowledged)
            sent.append(future)
            offsets[message.partition()] = message.offset() + 1
        if sent and time.perf_counter() > commit_at:
            await producer.flush()
            await asyncio.gather(*sent)
            await consumer.commit(offsets=[TopicPartition(order.input, *one) for one in offsets.items()])
            sent.clear()
            commit_at = time.perf_counter() + COMMIT_SECONDS
    await producer.flush()
    await asyncio.gather(*sent)
    await producer.close()
    await consumer.close()
    meter.sample(done).write(order.result)


if __name__ == "__main__":
    asyncio.run(run(received()))
