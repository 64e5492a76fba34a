"""Making a client of librdkafka: with our log lines, and with words for a person where its configuration is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from pipeline.broker.client_log import ClientLog
from pipeline.broker.config import KafkaConfig, refused

Client = TypeVar("Client")


def new_client(kind: Callable[..., Client], config: KafkaConfig, properties: Mapping[str, Any]) -> Client:
    """Make a client of a `kind` with `properties` made of `config`. Raises ConfigurationError where it refuses them."""
    try:
        return kind(properties, logger=ClientLog())
    except KafkaException as error:
        raise refused(config, error.args[0].str()) from None
