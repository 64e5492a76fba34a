"""The contract of all brokers on a real one, under both group protocols."""

from __future__ import annotations

from functools import partial

import pytest

from pipeline.devkit.kafka import Broker
from tests.broker.kafka_bench import kafka_bench
from tests.contracts.broker_bench import Opens
from tests.contracts.broker_contract import BrokerContract
from tests.contracts.transactions_contract import TransactionFacts


@pytest.mark.kafka
class TestKip848(BrokerContract):
    """The contract for members of the new protocol."""

    @pytest.fixture
    def opened(self, kafka: Broker) -> Opens:
        """Open a bench on the shared broker."""
        return partial(kafka_bench, kafka.bootstrap_servers, "consumer")


@pytest.mark.kafka
class TestClassic(BrokerContract):
    """The contract for members of the classic protocol."""

    @pytest.fixture
    def opened(self, kafka: Broker) -> Opens:
        """Open a bench on the shared broker."""
        return partial(kafka_bench, kafka.bootstrap_servers, "classic")


@pytest.mark.kafka
class TestTransactionsKip848(TransactionFacts):
    """Transactions for members of the new protocol."""

    @pytest.fixture
    def opened(self, kafka: Broker) -> Opens:
        """Open a bench on the shared broker."""
        return partial(kafka_bench, kafka.bootstrap_servers, "consumer")


@pytest.mark.kafka
class TestTransactionsClassic(TransactionFacts):
    """Transactions for members of the classic protocol."""

    @pytest.fixture
    def opened(self, kafka: Broker) -> Opens:
        """Open a bench on the shared broker."""
        return partial(kafka_bench, kafka.bootstrap_servers, "classic")
