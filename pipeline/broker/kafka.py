"""The ports `Consumer`, `Producer` and `Reader` on a real cluster, in one place."""

from __future__ import annotations

from pipeline.broker.kafka_consumer import KafkaConsumer, open_consumer
from pipeline.broker.kafka_producer import KafkaProducer, open_producer
from pipeline.broker.kafka_reader import KafkaReader, open_reader

__all__ = ["KafkaConsumer", "KafkaProducer", "KafkaReader", "open_consumer", "open_producer", "open_reader"]
