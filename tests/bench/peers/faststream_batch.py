"""FastStream on confluent-kafka, in batches: one acknowledgement a batch, after it was published as a batch.

https://faststream.ag2.ai/latest/confluent/Publisher/batch_publisher/
"""

from __future__ import annotations

import asyncio

from faststream import AckPolicy
from faststream.confluent import KafkaBroker, KafkaPublishMessage
from faststream.confluent.annotations import KafkaMessage

from tests.bench.peers.order import BATCH, PeerOrder, received


async def run(order: PeerOrder) -> None:
    """Move records until enough is measured."""
    broker = KafkaBroker(
        order.servers,
        logger=None,
        enable_idempotence=True,
        allow_auto_create_topics=False,
        linger_ms=5,
        config={"queued.min.messages": 50_000, "fetch.queue.backoff.ms": 5},
    )
    meter, done, over = order.meter(), 0, asyncio.Event()

    @broker.publisher(order.output, batch=True)
    @broker.subscriber(
        order.input,
        batch=True,
        max_records=BATCH,
        group_id=order.group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def handle(values: list[bytes], message: KafkaMessage) -> list[KafkaPublishMessage]:
        nonlocal done
        # The batch before this one is published and committed by now.
        if meter.note(done):
            over.set()
        done += len(values)
        raw = message.raw_message
        return [KafkaPublishMessage(value, key=one.key()) for value, one in zip(values, raw, strict=True)]

    async with broker:
        await broker.start()
        await over.wait()
    meter.sample(done).write(order.result)


if __name__ == "__main__":
    asyncio.run(run(received()))
