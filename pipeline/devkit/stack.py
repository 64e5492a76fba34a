"""The embedded stack: a broker, a model and a receiver, each only where nothing real is configured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from pipeline.devkit.kafka import Broker, EmbeddedKafkaConfig, embedded_kafka
from pipeline.devkit.receiver import Receiver, ReceiverConfig, new_secret, receiver
from pipeline.devkit.simulator import Simulator, SimulatorConfig, simulator

MODEL_KEY = "simulated"
"""The key that clients of the simulator use; it opens nothing."""


@dataclass(frozen=True)
class StackConfig:
    """What to start. `find` looks a variable up; `endpoints` are the address and secret variables of the catalog."""

    kafka: EmbeddedKafkaConfig
    find: Callable[[str], str | None]
    endpoints: Mapping[str, tuple[str, str]]
    simulator: SimulatorConfig = SimulatorConfig()


@dataclass(frozen=True)
class Stack:
    """What runs, and the variables by which everything else finds it."""

    environment: Mapping[str, str]
    broker: Broker
    simulator: Simulator | None
    receiver: Receiver | None


@asynccontextmanager
async def embedded_stack(config: StackConfig) -> AsyncIterator[Stack]:
    """Start what is missing and stop it at the end of the block. Errors are those of the parts, for people."""
    async with AsyncExitStack() as opened:
        given = config.find("KAFKA_BOOTSTRAP_SERVERS")
        broker = await opened.enter_async_context(embedded_kafka(replace(config.kafka, bootstrap_servers=given)))
        environment = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
        model = None
        if not config.find("OPENAI_BASE_URL") and not config.find("OPENAI_API_KEY"):
            model = await opened.enter_async_context(simulator(config.simulator))
            environment |= {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": MODEL_KEY}
        hooks = None
        missing = {name: pair for name, pair in config.endpoints.items() if not config.find(pair[0])}
        if missing:
            secret = next(filter(None, (config.find(pair[1]) for pair in missing.values())), None) or new_secret()
            hooks = await opened.enter_async_context(receiver(ReceiverConfig(secret=secret)))
            environment["PIPELINE_ALLOW_LOOPBACK_WEBHOOKS"] = "1"
            for name, (address, secret_name) in missing.items():
                environment |= {address: f"{hooks.url.rsplit('/', 1)[0]}/{name}", secret_name: secret}
        yield Stack(environment, broker, model, hooks)
