"""aiokafka: `getmany`, `send` without waiting for each, and a manual commit once all is acknowledged.

https://aiokafka.readthedocs.io/en/stable/examples/manual_commit.html and /batch_produce.html
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.bench.peers.order import BATCH, COMMIT_SECONDS, PeerOrder, received


async def run(order: PeerOrder) -> None:
    """Move records until enough is measured."""
    consumer = AIOKafkaConsumer(
        order.input,
        bootstrap_servers=order.servers,
        group_id=order.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=order.servers, enable_idempotence=True, linger_ms=5, max_batch_size=1 << 18
    )
    async with producer, consumer:
        meter, done, commit_at = order.meter(), 0, 0.0
        sent, offsets = list[Any](), dict[Any, int]()
        while not meter.note(done):
            found = await consumer.getmany(timeout_ms=50, max_records=BATCH)
            for partition, messages in found.items():
                for message in messages:
                    sent.append(await producer.send(order.output, message.value, message.key))
                offsets[partition] = messages[-1].offset + 1
            if sent and time.perf_counter() > commit_at:
                await asyncio.gather(*sent)
                done += len(sent)
                sent.clear()
                await consumer.commit(offsets)
                commit_at = time.perf_counter() + COMMIT_SECONDS
        await asyncio.gather(*sent)
        done += len(sent)
        await consumer.commit(offsets)
    meter.sample(done).write(order.result)


if __name__ == "__main__":
    asyncio.run(run(received()))
