"""What a variant's process is told: where to read, where to write, how long, and how."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from pipeline.core import names
from pipeline.core.stage import Delivery

NOUN = "contexts"
"""What the topics carry, at both ends of a variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run of a variant. `seconds` bounds what is measured, `available` is the number of records to read.

    `group` is made up where none is named. `avro`: decode, validate and encode each value; else it is passed on as
    bytes. The rest is for our runtime: what a crash may cost, handlers at once, how long each waits in seconds, whether
    evenly or by chance between half and one and a half of that, the key whose handler never ends, and how long every
    25th key's waits. `fetches` counts what the client fetched; `watch` keeps a line of each call. `look` is how often,
    in seconds, a program that runs until it is told to stop looks how it stands.
    """

    servers: str
    prefix: str
    output_prefix: str
    seconds: float
    available: int
    result: Path
    group: str = ""
    avro: bool = False
    delivery: Delivery = "at least once"
    concurrency: int = 64
    wait: float = 0.0
    by_chance: bool = False
    stuck: str = ""
    long: float = 0.0
    fetches: bool = False
    watch: bool = False
    look: float = 0.1

    @property
    def input(self) -> str:
        """The topic to read."""
        return names.topic(self.prefix, NOUN)

    @property
    def output(self) -> str:
        """The topic to write to. By its lane, for our stage reads and writes the same noun."""
        return names.topic(self.output_prefix, NOUN, "standard")

    @property
    def status(self) -> Path:
        """Where a program that runs until it is told to stop says how it stands."""
        return self.result.with_suffix(".status")

    def argument(self) -> str:
        """Spell the order as `received` reads it."""
        return json.dumps({**asdict(self), "result": str(self.result)})


def received() -> Order:
    """Read the order that this process was started with."""
    told = json.loads(sys.argv[1])
    return Order(**{**told, "result": Path(told["result"])})


def new_group() -> str:
    """Name a consumer group that nobody has used: it begins at the first record."""
    return f"bench.{uuid4().hex[:12]}"
