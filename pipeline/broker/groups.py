"""Who is in a group, as its coordinator says, by a client that outlives a coordinator that does not answer.

librdkafka 2.16 ends the process (an assertion in rd_kafka_enq_once_del_source_return) where the time of such a request
runs out before a coordinator is there: each time where a broker was away for longer. So a request is given all the time
that the client allows, there is one for each group at most, and whoever asks waits no longer than they want to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, though its stubs do not say so
    AdminClient,
    ConsumerGroupDescription,
)

MOST_SECONDS = 3600.0
_LOOK_SECONDS = 0.02


class Groups:
    """Asks coordinators with an admin client."""

    def __init__(self, client: AdminClient) -> None:
        """Ask nothing yet."""
        self._client = client
        self._asked: dict[str, Future[ConsumerGroupDescription]] = {}

    async def members(self, group: str, seconds: float) -> Collection[str]:
        """Name the members of `group`. Raises KafkaException, after `seconds` where no coordinator answers."""
        asked, end = self._ask(group), time.monotonic() + seconds
        while not asked.done():
            if time.monotonic() > end:
                why = f"the coordinator of {group} has not answered for {seconds:g} s"
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, why))
            await asyncio.sleep(_LOOK_SECONDS)
        return [member.member_id for member in asked.result().members]

    def _ask(self, group: str) -> Future[ConsumerGroupDescription]:
        asked = self._asked.get(group)
        if asked is None or asked.done():
            asked = self._client.describe_consumer_groups([group], request_timeout=MOST_SECONDS)[group]
            self._asked[group] = asked
        return asked
