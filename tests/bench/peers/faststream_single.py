"""FastStream on confluent-kafka, a message at a time: acknowledged after its handler, published before.

https://faststream.ag2.ai/latest/confluent/ack/ ("at least once" wants an acknowledgement policy of its own)
"""

from __future__ import annotations

import asyncio

from faststream import AckPolicy
from faststream.confluent import KafkaBroker, KafkaResponse
from faststream.confluent.annotations import KafkaMessage

from tests.bench.peers.order import PeerOrder, received


async def run(order: PeerOrder) -> None:
    """Move records until enough is measured."""
    broker = KafkaBroker(order.servers, logger=None, enable_idempotence=True, allow_auto_create_topics=False)
    meter, done, over = order.meter(), 0, asyncio.Event()

    @broker.publisher(order.output)
    @broker.subscriber(
        order.input, group_id=order.group, auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR
    )
    async def handle(value: bytes, message: KafkaMessage) -> KafkaResponse:
        nonlocal done
        # The message before this one is published and committed by now.
        if meter.note(done):
            over.set()
        done += 1
        return KafkaResponse(value, key=message.raw_message.key())

    async with broker:
        await broker.start()
        await over.wait()
    meter.sample(done).write(order.result)


if __name__ == "__main__":
    asyncio.run(run(received()))
