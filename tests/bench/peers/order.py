"""What a peer's process is told."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.meter import Meter

COMMIT_SECONDS = 0.1
BATCH = 500


@dataclass(frozen=True, slots=True)
class PeerOrder:
    """One run: from `input` to `output` in the group `group`, measured for `seconds`, of `available` records."""

    servers: str
    input: str
    output: str
    group: str
    seconds: float
    available: int
    result: Path

    def meter(self) -> Meter:
        """Make the meter of this run."""
        return Meter(self.seconds, self.available)


def received() -> PeerOrder:
    """Read the order that this process was started with."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    return PeerOrder(**{**told, "result": Path(told["result"])})
