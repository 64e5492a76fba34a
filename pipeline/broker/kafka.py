"""The ports `Consumer` and `Producer` on a real cluster, in one place."""

from __future__ import annotations

from pipeline.broker.kafka_consumer import KafkaConsumer, open_consumer
from pipeline.broker.kafka_producer import KafkaProducer, open_producer

__all__ = ["KafkaConsumer", "KafkaProducer", "open_consumer", "open_producer"]
