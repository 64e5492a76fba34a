"""Five bare loops in one process, a thread each, chained by topics, until SIGTERM. `python -m tests.bench.bare_hops`.

Each waits for one record and takes what else is there, which is the quickest way; nothing lingers.
"""

from __future__ import annotations

import signal
import threading

from confluent_kafka import Consumer, Producer

from pipeline.core import names
from tests.bench.bare import BATCH, Epochs
from tests.bench.hops import HOPS, noun
from tests.bench.order import Order, received


def hop(order: Order, number: int, producer: Producer, stop: threading.Event) -> None:
    """Move records from one topic to the next until `stop`."""
    source, target = (names.topic(order.prefix, noun(one)) for one in (number, number + 1))
    consumer, epochs = _consumer(order, source), Epochs(source)
    while not stop.is_set():
        first = consumer.poll(0.1)
        if first is not None:
            messages = [first, *consumer.consume(BATCH, 0)]
            epoch = epochs.current
            epoch.sent += len(messages)
            for message in messages:
                producer.produce(target, message.value(), message.key(), on_delivery=epoch.delivered)
                epoch.offsets[message.partition()] = message.offset() + 1  # type: ignore[index,operator]  # records have both
        producer.poll(0)
        epochs.commit(consumer)
    producer.flush()
    epochs.close(consumer)


def run(order: Order) -> None:
    """Run the chain until told to stop."""
    producer = Producer({"bootstrap.servers": order.servers, "enable.idempotence": True, "linger.ms": 0})
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threads = [threading.Thread(target=hop, args=(order, number, producer, stop)) for number in range(HOPS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _consumer(order: Order, topic: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": order.servers,
            "group.id": f"{order.prefix}.{topic}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    consumer.subscribe([topic])
    return consumer


if __name__ == "__main__":
    run(received())
