"""Quix Streams: a streaming dataframe from topic to topic, with its at-least-once guarantee and commits by time.

https://quix.io/docs/quix-streams/configuration.html
"""

from __future__ import annotations

from quixstreams import Application

from tests.bench.peers.order import COMMIT_SECONDS, PeerOrder, received


def run(order: PeerOrder) -> None:
    """Move records until enough is measured. `run` flushes and commits at its end."""
    application = Application(
        broker_address=order.servers,
        consumer_group=order.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        commit_interval=COMMIT_SECONDS,
        loglevel="WARNING",
        consumer_extra_config={"queued.min.messages": 50_000, "fetch.queue.backoff.ms": 5},
        producer_extra_config={
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        },
    )
    source = application.topic(order.input, key_deserializer="bytes", value_deserializer="bytes")
    target = application.topic(order.output, key_serializer="bytes", value_serializer="bytes")
    meter, done = order.meter(), 0

    def count(value: bytes) -> bytes:
        nonlocal done
        if meter.note(done):
            application.stop()
        done += 1
        return value

    application.dataframe(source).apply(count).to_topic(target)
    application.run()
    meter.sample(done).write(order.result)


if __name__ == "__main__":
    run(received())
