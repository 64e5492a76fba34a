"""Making a client."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from pipeline.broker.client import new_client
from pipeline.broker.config import KafkaConfig
from pipeline.core.errors import ConfigurationError


def test_a_value_that_is_not_accepted() -> None:
    """It is an error of configuration, and names the variable that a person has set."""
    config = KafkaConfig({"bootstrap.servers": "127.0.0.1:1", "compression.type": "none at all"})
    with pytest.raises(ConfigurationError, match=r"Check .*KAFKA_COMPRESSION_TYPE"):
        new_client(Producer, config, config.producer())
